"""Lookups in buckets, compared with the codes whose address is near the query's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from indexer.array_types import Codes
from indexer.search.code_buckets import CodeBuckets

NUM_CODES, NUM_BYTES = 2000, 4
NUM_ADDRESS_BITS = 11  # the logarithm of the number of codes
RANDOM = np.random.default_rng(0)
CODES = RANDOM.integers(0, 256, (NUM_CODES, NUM_BYTES)).astype(np.uint8)
QUERIES = RANDOM.integers(0, 256, (5, NUM_BYTES)).astype(np.uint8)


def bits(codes: Codes) -> Codes:
    return np.unpackbits(codes, axis=1, bitorder="little")


@pytest.mark.parametrize("flips", [0, 1, 2, 4])
def test_a_lookup_finds_all_codes_whose_address_is_within_the_flips(flips: int) -> None:
    distances, positions = CodeBuckets(CODES).search(QUERIES, NUM_CODES, flips)
    differences = bits(QUERIES)[:, None] != bits(CODES)
    are_near = differences[:, :, :NUM_ADDRESS_BITS].sum(axis=2) <= flips
    for row in range(len(QUERIES)):
        is_code = positions[row] >= 0
        assert sorted(positions[row, is_code]) == np.flatnonzero(are_near[row]).tolist()
        expected = differences[row].sum(axis=1)[positions[row, is_code]]
        assert np.array_equal(distances[row, is_code], expected)


def test_a_lookup_gives_the_k_nearest_and_minus_one_for_those_it_lacks() -> None:
    buckets = CodeBuckets(CODES)
    all_distances, all_positions = buckets.search(QUERIES, NUM_CODES, 2)
    distances, positions = buckets.search(QUERIES, 3, 2)
    assert positions.shape == (5, 3)
    for row in range(len(QUERIES)):
        nearest = np.sort(all_distances[row, all_positions[row] >= 0])[:3]
        assert np.array_equal(np.sort(distances[row, positions[row] >= 0]), nearest)
    assert (buckets.search(QUERIES, NUM_CODES, 0)[1][:, -1] == -1).all()


def test_few_codes_and_short_codes_have_buckets_too() -> None:
    for codes in (CODES[:0], CODES[:1], CODES[:3, :2]):
        queries = QUERIES[:, : codes.shape[1]]
        _, positions = CodeBuckets(codes).search(queries, 2, 4)
        assert positions.max(initial=-1) < len(codes)


def test_threads_with_different_flips_do_not_disturb_each_other() -> None:
    buckets = CodeBuckets(CODES)
    alone = [buckets.search(QUERIES, 50, flips)[0] for flips in range(5)]
    with ThreadPoolExecutor(5) as pool:
        for _ in range(10):
            together = pool.map(lambda flips: buckets.search(QUERIES, 50, flips)[0], range(5))
            assert all(map(np.array_equal, together, alone))
