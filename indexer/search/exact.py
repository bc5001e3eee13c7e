"""Exact search: blocks of the memory-mapped features are scanned in float32, and the best of them measured again in doubles."""

import numpy as np

from indexer.array_types import Doubles, Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.storage.index import Index

Found = tuple[Doubles, Rows]
"""Distances and rows of a query's nearest, nearest first, ties by row."""

BLOCK_ROWS = 2048
"""Rows at a time: 32 MB, where they have to be gathered because others lie between them."""
NUM_SPARE = 16
"""Candidates beyond k, so that rounding in float32 costs no neighbour."""


def nearest(index: Index, rows: Rows, queries: Floats, k: int, metric: Metric) -> list[Found]:
    """The `k` nearest of `rows` (n,), or all n where k is more, to each query (B, 4096)."""
    return refined(index, queries, scanned(index, rows, queries, k, metric), k, metric)


def scanned(index: Index, rows: Rows, queries: Floats, k: int, metric: Metric) -> Rows:
    """The `k` nearest of `rows` and some more, in no order, (B, min(k + 16, n))."""
    num_kept = min(k + NUM_SPARE, len(rows))
    best, best_rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for some_rows in (
        rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)
    ):
        distances, places = DISTANCES[metric].scan(
            queries,
            _gathered(index.features, some_rows),
            index.records["norm"][some_rows],
            num_kept,
        )
        best = np.concatenate([best, distances], axis=1)
        best_rows = np.concatenate([best_rows, some_rows[places]], axis=1)
        if best.shape[1] > num_kept:
            kept = np.argpartition(best, num_kept - 1, axis=1)[:, :num_kept]
            best, best_rows = (
                np.take_along_axis(best, kept, axis=1),
                np.take_along_axis(best_rows, kept, axis=1),
            )
    return best_rows


def refined(index: Index, queries: Floats, candidates: Rows, k: int, metric: Metric) -> list[Found]:
    """The `k` nearest of each query's candidates (B, n), by their true distances; fewer where fewer are rows. -1 is no row."""
    found = []
    for query, some in zip(queries, candidates, strict=True):
        rows = np.unique(some[some >= 0])
        distances = true_distances(index, query, rows, metric)
        order = np.argsort(distances, kind="stable")[:k]
        found.append((distances[order], rows[order]))
    return found


def true_distances(index: Index, query: Floats, rows: Rows, metric: Metric) -> Doubles:
    """The distances of rows (n,) from a query (4096,), in doubles, (n,).

    Cosine distance is 1 - cosine, 0..2; a feature of zeros is at distance 1 from everything.
    """
    blocks = (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
    distances = [
        DISTANCES[metric].to_query(
            query.astype(np.float64), index.features[block].astype(np.float64)
        )
        for block in blocks
    ]
    return np.concatenate(distances) if distances else np.empty(0)


def _gathered(features: Floats, rows: Rows) -> Floats:
    """The features of ascending rows; those that lie side by side are not copied."""
    first, last = int(rows[0]), int(rows[-1])
    return features[first : last + 1] if last - first + 1 == len(rows) else features[rows]
