"""Exact search: scan all features in float32, and measure the best candidates again in doubles."""

import numpy as np

from indexer.array_types import Doubles, Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.search.top_k import merge_nearest
from indexer.storage.index import Index

Neighbours = tuple[Doubles, Rows]
"""Distances and rows of the items nearest to one query, nearest first. Items at the same distance
are ranked by row number."""

SCAN_BLOCK_ROWS = 2048
"""Number of rows per block of a scan. A block takes 32 MB if its features have to be copied."""
NUM_SPARE = 16
"""Number of candidates beyond k. They are needed because float32 may put almost equal distances in
the wrong order."""


def find_nearest(
    index: Index, rows: Rows, queries: Floats, k: int, metric: Metric
) -> list[Neighbours]:
    """Find the min(k, n) nearest of `rows` (n,) to each query (B, 4096)."""
    candidates = scan_features(index, rows, queries, k, metric)
    return rank_candidates(index, queries, candidates, k, metric)


def scan_features(index: Index, rows: Rows, queries: Floats, k: int, metric: Metric) -> Rows:
    """Scan `rows` (n,) in float32 for the rows nearest to each query (B, 4096).

    Returns the `k` nearest and NUM_SPARE more, unordered, (B, min(k + NUM_SPARE, n)).
    """
    num_kept = min(k + NUM_SPARE, len(rows))
    best, best_rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), SCAN_BLOCK_ROWS):
        block_rows = rows[start : start + SCAN_BLOCK_ROWS]
        features, lengths = _features_of(index, block_rows), index.records["norm"][block_rows]
        keys, positions = DISTANCES[metric].scan(queries, features, lengths, num_kept)
        best, best_rows = merge_nearest(
            best, best_rows, keys, block_rows[positions], num_kept, is_sorted=False
        )
    return best_rows


def rank_candidates(
    index: Index, queries: Floats, candidates: Rows, k: int, metric: Metric
) -> list[Neighbours]:
    """The `k` nearest of each query's candidate rows (B, n), by true distance.

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
