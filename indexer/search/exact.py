"""Exact search: scan all features in float32, and measure the best candidates again in doubles."""

from collections.abc import Iterable

import numpy as np

from indexer.array_types import Doubles, Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.storage.index import Index

Neighbours = tuple[Doubles, Rows]
"""Distances and rows of the items nearest to one query, nearest first. Items at the same distance
are ranked by row number."""

SCAN_BLOCK_ROWS = 2048
"""Number of rows per block of a scan. A block takes 32 MB if its features have to be copied."""


def find_nearest(
    index: Index, rows: Rows, queries: Floats, k: int, metric: Metric
) -> list[Neighbours]:
    """Find the min(k, n) nearest of `rows` (n,) to each query (B, 4096)."""
    candidates = scan_features(index, rows, queries, k, metric)
    return rank_candidates(index, queries, candidates, k, metric)


def scan_features(index: Index, rows: Rows, queries: Floats, k: int, metric: Metric) -> list[Rows]:
    """Scan `rows` (n,) in float32 for the candidates of each query (B, 4096), in any order.

    The `k` nearest rows are among the candidates for certain. float32 cannot put distances in order
    that are almost equal, so there are a few more candidates.
    """
    candidates = [_Candidates(k) for _ in queries]
    for start in range(0, len(rows), SCAN_BLOCK_ROWS):
        block_rows = rows[start : start + SCAN_BLOCK_ROWS]
        features, lengths = _features_of(index, block_rows), index.records["norm"][block_rows]
        bounds = DISTANCES[metric].key_bounds(queries, features, lengths)
        for some, lower, upper in zip(candidates, *bounds, strict=True):
            some.add(block_rows, lower, upper)
    return [some.rows for some in candidates]


class _Candidates:
    """The rows that can be among the `k` nearest to one query, by the bounds of their keys."""

    def __init__(self, k: int):
        self._k = k
        self.rows: Rows = np.empty(0, np.int64)
        self._lower = self._upper = np.empty(0, np.float32)
        self._limit = np.float32(np.inf)
        """The k-th smallest upper bound. A row with a larger lower bound is not a candidate."""

    def add(self, rows: Rows, lower: Floats, upper: Floats) -> None:
        """Add those of `rows` (n,) that are candidates. `lower` and `upper` are (n,)."""
        (near,) = np.nonzero(lower <= self._limit)
        if not len(near):
            return
        self.rows = np.concatenate([self.rows, rows[near]])
        self._lower = np.concatenate([self._lower, lower[near]])
        self._upper = np.concatenate([self._upper, upper[near]])
        if len(self.rows) > self._k:
            self._limit = np.partition(self._upper, self._k - 1)[self._k - 1]
            (near,) = np.nonzero(self._lower <= self._limit)
            self.rows = self.rows[near]
            self._lower, self._upper = self._lower[near], self._upper[near]


def rank_candidates(
    index: Index, queries: Floats, candidates: Iterable[Rows], k: int, metric: Metric
) -> list[Neighbours]:
    """The `k` nearest of each query's candidate rows (n,), by true distance.

    Candidates of -1 are left out, and a repeated row counts once. Therefore the result may contain
    fewer than k rows.
    """
    neighbours = []
    for query, candidate_rows in zip(queries, candidates, strict=True):
        rows = np.unique(candidate_rows[candidate_rows >= 0])
        distances = true_distances(index, query, rows, metric)
        order = np.argsort(distances, kind="stable")[:k]
        neighbours.append((distances[order], rows[order]))
    return neighbours


def true_distances(index: Index, query: Floats, rows: Rows, metric: Metric) -> Doubles:
    """The distances (n,) of `rows` (n,) from a query (4096,), computed in doubles."""
    distances, query_doubles = np.empty(len(rows)), query.astype(np.float64)
    for start in range(0, len(rows), SCAN_BLOCK_ROWS):
        block = slice(start, start + SCAN_BLOCK_ROWS)
        features = index.features[rows[block]].astype(np.float64)
        distances[block] = DISTANCES[metric].to_query(query_doubles, features)
    return distances


def _features_of(index: Index, rows: Rows) -> Floats:
    """The features (n, 4096) of ascending rows. If the rows are consecutive, nothing is copied."""
    first, last = int(rows[0]), int(rows[-1])
    are_consecutive = last - first + 1 == len(rows)
    features: Floats = index.features[first : last + 1] if are_consecutive else index.features[rows]
    return features
