"""Measures of search quality.

- Recall at k: the share of the k nearest items that a search returns.
- Precision at k: the share of the k matches that have the query's label.
- mAP: the mean of the average precision over all queries. The average precision of a query is
  computed over the whole ranking (Manning et al. 2008, section 8.4).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes, Doubles, Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.search.searcher import Match
from indexer.search.top_k import merge_nearest

RANKING_BLOCK_QUERIES = 1024
"""Number of queries in a block. Their features take 32 MB as doubles."""
RANKING_BLOCK_ROWS = 1024
"""Number of rows in a block. Their features take 32 MB as doubles."""
RANKING_BYTES = 128 * 2**20
"""Maximum memory for the distances of a block of queries to all items."""
TIE_TOLERANCE = 1e-6
"""Two distances count as equal if their relative difference is smaller than this."""


def precision_at_k(matches: Sequence[Sequence[Match]], labels: Sequence[str | None]) -> float:
    """The share of all matches that have their query's label. It is NaN if there are no matches."""
    hits = [
        match.item.label == label
        for query_matches, label in zip(matches, labels, strict=True)
        for match in query_matches
    ]
    return sum(hits) / len(hits) if hits else float("nan")


def exact_neighbours(
    queries: Floats, features: Floats, rows: Rows, k: int, metric: Metric
) -> tuple[Doubles, Rows]:
    """The distances and rows of the `k` rows nearest to each query, (Q, min(k, n)) each.

    `queries` is (Q, 4096). `features` is (num_rows, 4096) and may be memory-mapped. `rows` (n,) are
    the rows to search. The nearest row comes first. Rows at the same distance are ranked by row
    number. Distances are computed as doubles, in blocks. For any number of rows and queries, this
    needs less than 256 MB of memory in addition to the result.
    """
    k = min(k, len(rows))
    distances, nearest = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), RANKING_BLOCK_QUERIES):
        block = slice(start, start + RANKING_BLOCK_QUERIES)
        num_queries = len(queries[block])
        best, best_rows = np.empty((num_queries, 0)), np.empty((num_queries, 0), np.int64)
        for some_rows, some_distances in _distances(queries[block], features, rows, metric):
            best, best_rows = merge_nearest(best, best_rows, some_distances, some_rows, k)
        distances[block], nearest[block] = best, best_rows
    return distances, nearest


def recall_at_k(
    matches: Sequence[Rows],
    exact: tuple[Doubles, Rows],
    queries: Floats,
    features: Floats,
    metric: Metric,
) -> Doubles:
    """The share of each query's `k` nearest rows that a search returned, (Q,).

    `matches` contains the rows that the search returned, one array per query. `exact` is the result
    of `exact_neighbours`, (Q, k) each. A share is NaN if there are no nearest rows. A row that is
    as near as the k-th nearest row counts as a hit, because chance decides which of several equally
    near rows are among the k.
    """
    recalls = np.full(len(queries), np.nan)
    for position, (rows, distances, nearest) in enumerate(zip(matches, *exact, strict=True)):
        if not len(nearest):
            continue
        num_hits = len(np.intersect1d(rows, nearest))
        others = np.setdiff1d(rows, nearest)
        query = queries[position : position + 1]
        for _, other_distances in _distances(query, features, others, metric):
            num_hits += int(
                np.count_nonzero(other_distances <= distances[-1] * (1 + TIE_TOLERANCE))
            )
        recalls[position] = min(num_hits, len(nearest)) / len(nearest)
    return recalls


def average_precisions(
    queries: Floats,
    query_labels: Rows,
    features: Floats,
    rows: Rows,
    row_labels: Rows,
    metric: Metric,
    *,
    own_rows: Rows | None = None,
) -> Doubles:
    """Average precision of each query, (Q,), over the ranking of all rows by distance.

    A value is NaN if no row has the query's label. `rows` (n,) are in ascending order.
    `query_labels` (Q,) and `row_labels` (n,) are label numbers. A negative number means that there
    is no label. Rows at the same distance are ranked by row number. `own_rows` (Q,) contains one
    row per query. This row is left out of the query's ranking. If it is -1, no row is left out. For
    each block of queries, the distances to all rows are kept as float32.
    """
    precisions = np.full(len(queries), np.nan)
    block_size = int(np.clip(RANKING_BYTES // (4 * max(len(rows), 1)), 1, RANKING_BLOCK_QUERIES))
    for start in range(0, len(queries), block_size):
        block = queries[start : start + block_size]
        # BLAS may round the distances of two duplicates differently. As float32, these distances
        # are equal.
        distances = np.empty((len(block), len(rows)), np.float32)
        end = 0
        for _, some_distances in _distances(block, features, rows, metric):
            first, end = end, end + some_distances.shape[1]
            distances[:, first:end] = some_distances
        for position, ranked in enumerate(distances, start):
            is_own = None if own_rows is None else rows == own_rows[position]
            is_hit = _hits(ranked, query_labels[position], row_labels, is_own)
            precisions[position] = average_precision(is_hit)
    return precisions


def code_average_precisions(
    queries: Codes,
    query_labels: Rows,
    codes: Codes,
    rows: Rows,
    row_labels: Rows,
    *,
    own_rows: Rows | None = None,
) -> Doubles:
    """Like `average_precisions`, but by the Hamming distance between codes.

    `queries` (Q, bytes) are the codes of the queries. `codes` (n, bytes) contains one code per row.
    """
    precisions = np.full(len(queries), np.nan)
    for position, query in enumerate(queries):
        distances = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.float32)
        is_own = None if own_rows is None else rows == own_rows[position]
        is_hit = _hits(distances, query_labels[position], row_labels, is_own)
        precisions[position] = average_precision(is_hit)
    return precisions


def average_precision(is_hit: npt.NDArray[np.bool_]) -> float:
    """The mean of the precisions at the ranks of all hits. It is NaN if there are no hits.

    `is_hit` (n,) says for each rank whether the item at this rank has the query's label. The
    nearest item comes first.
    """
    ranks = np.flatnonzero(is_hit) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else float("nan")


def mean_of(values: Doubles) -> float:
    """The mean of the values that are not NaN. It is NaN if there are no such values."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _hits(
    distances: Floats, label: np.int64, row_labels: Rows, is_own: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_]:
    """Rank the rows by distance. Return a mask (n,) of rows that have the label, nearest first.

    `is_own` (n,) marks the query's own row. This row is ranked last and is not a hit.
    """
    is_hit = (row_labels == label) & (label >= 0)
    if is_own is not None:
        is_hit &= ~is_own
        distances = np.where(is_own, np.float32(np.inf), distances)
    ranked: npt.NDArray[np.bool_] = is_hit[np.argsort(distances, kind="stable")]
    return ranked


def _distances(
    queries: Floats, features: Floats, rows: Rows, metric: Metric
) -> Iterator[tuple[Rows, Doubles]]:
    """Yield blocks of rows, and the queries' distances to them, (Q, rows of the block)."""
    doubles = queries.astype(np.float64)
    for start in range(0, len(rows), RANKING_BLOCK_ROWS):
        some_rows = rows[start : start + RANKING_BLOCK_ROWS]
        some_features = features[some_rows].astype(np.float64)
        yield some_rows, DISTANCES[metric].matrix(doubles, some_features)
