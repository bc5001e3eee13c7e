"""Keep the nearest rows to each query while blocks of rows are scanned one after another."""

from typing import TypeVar

import numpy as np

from indexer.array_types import Doubles, Floats, Rows

DistanceArray = TypeVar("DistanceArray", Floats, Doubles)


def merge_nearest(
    best: DistanceArray,
    best_rows: Rows,
    distances: DistanceArray,
    rows: Rows,
    k: int,
) -> tuple[DistanceArray, Rows]:
    """Merge one more block of rows into the nearest rows so far, and keep each query's `k` nearest.

    `best` and `best_rows` (B, m) are the result of the previous call. Pass empty arrays (B, 0) to
    the first call. `distances` (B, n) are the distances of the block. `rows` has the row of each
    distance, (B, n), or (n,) if the block has the same rows for all queries. Returns distances and
    rows, (B, min(k, m + n)) each.

    The nearest rows come first. If distances are equal, the row that was merged first comes first.
    """
    distances = np.concatenate([best, distances], axis=1)
    block_shape = (len(distances), distances.shape[1] - best.shape[1])
    rows = np.concatenate([best_rows, np.broadcast_to(rows, block_shape)], axis=1)
    kept = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
