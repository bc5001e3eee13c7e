"""`lookalike index compact`: reclaim the space of removed items."""

from dataclasses import dataclass
from pathlib import Path

from indexer.search.kinds import RequestedKind
from indexer.search.update_structures import update_search
from indexer.storage.manifest import Manifest
from indexer.storage.writer import IndexWriter
from training.devices import Device

WORTHWHILE_SHARE = 0.2
"""Minimum share of removed rows. It limits the cost: a compaction copies at most four times as many
rows as it drops, however large the index is."""


@dataclass(frozen=True)
class Compaction:
    """The result of a compaction."""

    num_items: int
    num_removed: int
    """Number of removed rows before the compaction."""
    num_freed_bytes: int
    """How much smaller the growing files are; 0 if they were not written again."""
    kind: str
    """How the index is searched afterwards."""


def compact(
    directory: Path,
    *,
    force: bool = False,
    kind: RequestedKind | None = None,
    memory_bytes: int | None = None,
    device: Device = "auto",
) -> Compaction:
    """Write the growing files again without the removed rows; raises UserError.

    This happens if at least a fifth of the rows are removed, or with `force`. With `kind`, the
    index is searched in this way from now on, and its structures are made on `device`. Readers keep
    the files that they opened. Both generations need space on the disk until the commit. If the
    disk is full, the old generation stays.
    """
    with IndexWriter.open(directory) as writer:
        manifest = writer.manifest
        num_removed = manifest.num_rows - manifest.num_items
        if num_removed and (force or num_removed >= WORTHWHILE_SHARE * manifest.num_rows):
            writer.rewrite(writer.index.rows)
        makes_structures = kind is not None
        update_search(
            writer, kind=kind, memory_bytes=memory_bytes, device=device, anew=makes_structures
        )
        writer.commit()
        num_freed_bytes = _growing_bytes(manifest) - _growing_bytes(writer.manifest)
        return Compaction(manifest.num_items, num_removed, num_freed_bytes, writer.manifest.kind)


def _growing_bytes(manifest: Manifest) -> int:
    return sum(extent.num_bytes for extent in manifest.files.values())
