"""Rows are found by the hash of their path or content."""

import numpy as np

from indexer.storage.row_lookup import RowLookup


def lookup(hashes: list[int], rows: list[int]) -> RowLookup:
    return RowLookup(np.array(hashes, np.uint64), np.array(rows, np.int64))


def test_rows_of_a_hash_come_in_the_order_in_which_they_were_given() -> None:
    rows = lookup([5, 3, 5, 9, 5], [10, 11, 12, 13, 14])
    assert rows.rows_of(5).tolist() == [10, 12, 14]
    assert rows.rows_of(9).tolist() == [13]


def test_an_unknown_hash_has_no_rows() -> None:
    assert lookup([5, 3], [0, 1]).rows_of(4).tolist() == []
    assert lookup([], []).rows_of(4).tolist() == []


def test_the_smallest_and_the_largest_hash_are_found() -> None:
    rows = lookup([2**64 - 1, 0, 2**63], [1, 2, 3])
    assert [rows.rows_of(value).tolist() for value in (0, 2**63, 2**64 - 1)] == [[2], [3], [1]]
