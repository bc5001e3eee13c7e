"""The stored comparison of the distances: which of them ranks better on an index.

It is a part of `search` in the manifest, which may contain any keys. So an index with a comparison
has the same format as one without it, and programs that do not know the comparison keep it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.metrics import METRICS, Metric

COMPARISON = "distance_comparison"
"""The key in `search`."""


@dataclass(frozen=True, kw_only=True)
class DistanceComparison:
    """How well each distance between features ranks the items of an index."""

    better_metric: Metric
    precisions: Mapping[Metric, float]
    """The share of the k nearest items that have the query's label, for each metric."""
    k: int
    commit: int
    """The index's commit when the distances were compared."""


def parse_comparison(search: Mapping[str, Any]) -> DistanceComparison | None:
    """The comparison in a manifest's `search`.

    It is None if the distances were never compared, or if a later release stored something that
    this one does not know.
    """
    try:
        comparison = DistanceComparison(**search[COMPARISON])
    except (KeyError, TypeError):
        return None
    return comparison if comparison.better_metric in METRICS else None
