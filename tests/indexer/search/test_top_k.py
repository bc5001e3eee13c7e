"""Merging the nearest rows of several blocks, compared with sorting all rows at once."""

import numpy as np
import pytest

from indexer.array_types import Doubles, Rows
from indexer.search.top_k import merge_nearest

NUM_QUERIES, NUM_ROWS, K = 3, 50, 8


def merged_in_blocks(
    distances: Doubles, rows: Rows, k: int, block_size: int
) -> tuple[Doubles, Rows]:
    best, best_rows = np.empty((len(distances), 0)), np.empty((len(distances), 0), np.int64)
    for start in range(0, distances.shape[1], block_size):
        block = slice(start, start + block_size)
        best, best_rows = merge_nearest(best, best_rows, distances[:, block], rows[..., block], k)
    return best, best_rows


@pytest.mark.parametrize("block_size", [1, 7, NUM_ROWS])
@pytest.mark.parametrize("k", [1, K, NUM_ROWS + 5])
def test_blocks_merge_to_the_k_nearest_of_all_rows_in_order(k: int, block_size: int) -> None:
    distances = np.random.default_rng(0).random((NUM_QUERIES, NUM_ROWS))
    best, rows = merged_in_blocks(distances, np.arange(NUM_ROWS), k, block_size)
    assert np.array_equal(rows, np.argsort(distances, axis=1)[:, :k])
    assert np.array_equal(best, np.sort(distances, axis=1)[:, :k])


@pytest.mark.parametrize("block_size", [1, 7, NUM_ROWS])
def test_ties_are_by_row_when_blocks_come_in_order_of_rows(block_size: int) -> None:
    distances = np.random.default_rng(0).integers(0, 3, (NUM_QUERIES, NUM_ROWS)).astype(np.float64)
    _, rows = merged_in_blocks(distances, np.arange(NUM_ROWS), K, block_size)
    assert np.array_equal(rows, np.argsort(distances, axis=1, kind="stable")[:, :K])


def test_each_query_may_bring_rows_of_its_own() -> None:
    distances = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    rows = np.array([[10, 11, 12], [20, 21, 22]])
    best, best_rows = merged_in_blocks(distances, rows, 2, 1)
    assert best.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert best_rows.tolist() == [[11, 12], [20, 21]]


def test_float32_distances_stay_float32() -> None:
    empty, empty_rows = np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)
    distances = np.array([[2, 1]], np.float32)
    best, _ = merge_nearest(empty, empty_rows, distances, np.arange(2), 1)
    assert best.dtype == np.float32
