"""The facts about an index that `index stats` shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.storage.codes import facts_of
from indexer.storage.distance_comparison import DistanceComparison
from indexer.storage.manifest import Manifest
from indexer.storage.records import CODES


@dataclass(frozen=True, kw_only=True)
class CodeStats:
    """The codes of an index."""

    num_bits: int
    num_fitted: int
    """Number of items that the encoder was learned from."""
    commit: int
    """The index's commit when the encoder was learned."""
    num_bytes: int

    @staticmethod
    def of(manifest: Manifest) -> "CodeStats | None":
        """The codes of the index with this manifest; None if it has no encoder."""
        encoder = facts_of(manifest)
        if encoder is None:
            return None
        return CodeStats(
            num_bits=encoder.num_bits,
            num_fitted=encoder.num_fitted,
            commit=encoder.commit,
            num_bytes=manifest.files[CODES].num_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """The facts about an index. `index stats --json` prints these fields in the same order."""

    index: str
    """The index's directory."""
    model: str
    """The model id."""
    precision: str
    """The precision of the network that made the features: float32 or int8."""
    num_items: int
    num_removed: int
    """Number of removed rows. A compaction drops them."""
    commit: int
    is_complete: bool
    kind: str
    """The kind of search for Euclidean neighbours."""
    search: Mapping[str, Mapping[str, Any]]
    """The facts about each FAISS structure and its `num_bytes`, by metric."""
    num_bytes: int
    """Size of all files in the directory."""
    created_at: str
    updated_at: str
    labels: Mapping[str, int]
    """The number of items of each label. The labels are in natural order."""
    probe: Mapping[str, Any] | None
    """The facts about the probe; None if no probe was fitted."""
    codes: CodeStats | None
    """The facts about the codes; None if the index has no encoder."""
    distance_comparison: DistanceComparison | None
    """The distance that ranks better, and the figures; None if it was never measured."""
