"""How good the look-alikes are: what the index's search misses of an exact one, and how often labels agree. NumPy only.

Recall at k        the share of the k truly nearest items that the index's own search finds
Precision at k     the share of the items found that have the query's label
mAP                the mean over queries of the average precision over the whole ranking (Manning et al. 2008, section 8.4)
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes, Doubles, Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.search.searcher import Match

QUERY_BLOCK, ROW_BLOCK = 1024, 1024
"""Queries and rows at a time; in doubles, a block of either takes 32 MB."""
RANKING_BYTES = 128 * 2**20
"""What the distances of a block of queries to every item may take."""
TIE = 1e-6
"""Distances that differ by less, relatively, are equal."""


def precision_at_k(matches: Sequence[Sequence[Match]], labels: Sequence[str | None]) -> float:
    """The share of matches that have their query's label, over all queries; NaN where there is none."""
    hits = [
        match.item.label == label
        for found, label in zip(matches, labels, strict=True)
        for match in found
    ]
    return sum(hits) / len(hits) if hits else float("nan")


def exact_neighbours(
    queries: Floats, features: Floats, rows: Rows, k: int, metric: Metric
) -> tuple[Doubles, Rows]:
    """Distances and rows of the `k` nearest of `rows` (n,) to each query, (Q, min(k, n)) each, nearest first, ties by row.

    `queries` (Q, 4096), `features` (num_rows, 4096) float32, the latter perhaps memory-mapped. Reckoned in doubles, in blocks:
    beside its result it takes less than 256 MB, however many rows or queries there are.
    """
    k = min(k, len(rows))
    distances, nearest = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        best, best_rows = np.empty((len(block), 0)), np.empty((len(block), 0), np.int64)
        for some_rows, found in _distances(block, features, rows, metric):
            best = np.concatenate([best, found], axis=1)
            best_rows = np.concatenate([best_rows, np.broadcast_to(some_rows, found.shape)], axis=1)
            order = np.argsort(best, axis=1, kind="stable")[:, :k]
            best, best_rows = (
                np.take_along_axis(best, order, axis=1),
                np.take_along_axis(best_rows, order, axis=1),
            )
        distances[start : start + len(block)], nearest[start : start + len(block)] = best, best_rows
    return distances, nearest


def recall_at_k(
    found: Sequence[Rows],
    exact: tuple[Doubles, Rows],
    queries: Floats,
    features: Floats,
    metric: Metric,
) -> Doubles:
    """The share of the `k` nearest that was found, for each query (Q,); NaN where there is none to find.

    `found` has the rows that a search gave, one array a query; `exact` is what `exact_neighbours` gave, (Q, k) each. A row as near
    as the k-th nearest is no miss: which of several that tie is among the k is chance.
    """
    recalls = np.full(len(queries), np.nan)
    for place, (rows, distances, nearest) in enumerate(zip(found, *exact, strict=True)):
        if not len(nearest):
            continue
        others = np.setdiff1d(rows, nearest)
        num_found = len(np.intersect1d(rows, nearest))
        for _, found_distances in _distances(queries[place : place + 1], features, others, metric):
            num_found += int(np.count_nonzero(found_distances <= distances[-1] * (1 + TIE)))
        recalls[place] = min(num_found, len(nearest)) / len(nearest)
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
    """The average precision of each query (Q,) over the ranking of all `rows` (n,) by distance; NaN where no row has its label.

    Labels are numbers, `query_labels` (Q,) and `row_labels` (n,); a negative one is no label. Average precision is the mean, over
    the rows with the query's label, of the precision at their rank; ties go by row. `own_rows` (Q,) are left out of the ranking of
    their own query: -1 leaves out none. `rows` ascend. Distances to all rows are held as float32, for a block of queries at a time.
    """
    result = np.full(len(queries), np.nan)
    block_size = int(np.clip(RANKING_BYTES // (4 * max(len(rows), 1)), 1, QUERY_BLOCK))
    for start in range(0, len(queries), block_size):
        block = queries[start : start + block_size]
        # Rounded to float32, duplicates tie, whose distances in doubles differ by where BLAS had them in its blocks.
        distances = np.empty((len(block), len(rows)), np.float32)
        for number, (_, some) in enumerate(_distances(block, features, rows, metric)):
            distances[:, number * ROW_BLOCK : number * ROW_BLOCK + some.shape[1]] = some
        for place, ranking in enumerate(distances, start):
            is_own = None if own_rows is None else rows == own_rows[place]
            result[place] = _average_precision(ranking, query_labels[place], row_labels, is_own)
    return result


def code_average_precisions(
    queries: Codes,
    query_labels: Rows,
    codes: Codes,
    rows: Rows,
    row_labels: Rows,
    *,
    own_rows: Rows | None = None,
) -> Doubles:
    """`average_precisions` by the bits that differ between codes, (Q, bytes) and (n, bytes), the latter parallel to `rows`."""
    result = np.full(len(queries), np.nan)
    for place, query in enumerate(queries):
        ranking = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.float32)
        is_own = None if own_rows is None else rows == own_rows[place]
        result[place] = _average_precision(ranking, query_labels[place], row_labels, is_own)
    return result


def _average_precision(
    distances: Floats, label: np.int64, row_labels: Rows, is_own: npt.NDArray[np.bool_] | None
) -> float:
    """Of one query's ranking by distances (n,), which it changes; NaN where no row has its label."""
    is_relevant = (row_labels == label) & (label >= 0)
    if is_own is not None:
        is_relevant &= ~is_own
        distances[is_own] = np.inf  # last, and irrelevant: of no consequence
    ranks = np.flatnonzero(is_relevant[np.argsort(distances, kind="stable")]) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else float("nan")


def mean_of(values: Doubles) -> float:
    """The mean of those that are numbers; NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _distances(
    queries: Floats, features: Floats, rows: Rows, metric: Metric
) -> Iterator[tuple[Rows, Doubles]]:
    """A block of `rows` (n,) after the other, with the queries' distances to them, (Q, n)."""
    doubles = queries.astype(np.float64)
    for start in range(0, len(rows), ROW_BLOCK):
        some_rows = rows[start : start + ROW_BLOCK]
        yield some_rows, DISTANCES[metric].matrix(doubles, features[some_rows].astype(np.float64))
