"""Exact neighbours, recall and average precision, against brute force and scikit-learn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.metrics import DISTANCES, METRICS, Metric
from indexer.reports.ranking import (
    average_precision,
    average_precisions,
    code_average_precisions,
    exact_neighbours,
    mean_of,
    precision_at_k,
    recall_at_k,
)
from indexer.search.searcher import Match
from indexer.storage.index import Item

NUM_ROWS, NUM_QUERIES, NUM_LABELS = 2500, 23, 5


def random_features(seed: int, num_rows: int) -> np.ndarray:
    normal = np.random.default_rng(seed).normal(-0.5, 2, (num_rows, 64))
    return np.maximum(normal, 0).astype(np.float32)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """More rows than a block has, of 64 numbers, most of them 0 as after a ReLU."""
    return random_features(seed=0, num_rows=NUM_ROWS)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return random_features(seed=1, num_rows=NUM_QUERIES)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Nine of ten rows. The others have been removed."""
    return np.flatnonzero(np.arange(NUM_ROWS) % 10 != 3)


def random_labels(num_labels: int) -> np.ndarray:
    return np.random.default_rng(num_labels).integers(0, NUM_LABELS, num_labels)


def mean_average_precision(
    queries: np.ndarray,
    query_labels: np.ndarray,
    features: np.ndarray,
    rows: np.ndarray,
    row_labels: np.ndarray,
    metric: Metric,
) -> tuple[float, int]:
    """mAP over the queries whose label a row has, NaN without any, and the number of the others."""
    precisions = average_precisions(queries, query_labels, features, rows, row_labels, metric)
    return mean_of(precisions), int(np.count_nonzero(np.isnan(precisions)))


def brute_force(query: np.ndarray, features: np.ndarray, metric: Metric) -> np.ndarray:
    query, features = query.astype(np.float64), features.astype(np.float64)
    if metric == "euclidean":
        return np.array([np.sqrt(((feature - query) ** 2).sum()) for feature in features])
    return np.array(
        [
            1 - feature @ query / np.sqrt((feature @ feature) * (query @ query))
            for feature in features
        ]
    )


@pytest.mark.parametrize("metric", METRICS)
def test_exact_neighbours_equal_brute_force_among_the_live_rows(
    metric: Metric, queries: np.ndarray, features: np.ndarray, rows: np.ndarray
) -> None:
    neighbours = exact_neighbours(queries, features, rows, 20, metric)
    for query, distances, nearest in zip(queries, *neighbours, strict=True):
        expected = brute_force(query, features[rows], metric)
        order = np.argsort(expected)[:20]
        np.testing.assert_array_equal(nearest, rows[order])
        np.testing.assert_allclose(distances, expected[order], rtol=1e-9)


def test_fewer_rows_than_k_give_all_of_them_and_no_rows_none(
    queries: np.ndarray, features: np.ndarray
) -> None:
    distances, nearest = exact_neighbours(queries, features, np.array([5, 9]), 7, "euclidean")
    assert distances.shape == nearest.shape == (NUM_QUERIES, 2)
    assert exact_neighbours(queries, features, np.array([], np.int64), 7, "cosine")[1].shape == (
        NUM_QUERIES,
        0,
    )


@pytest.mark.parametrize("metric", METRICS)
def test_a_feature_is_at_distance_zero_from_itself(
    metric: Metric, features: np.ndarray, rows: np.ndarray
) -> None:
    distances, nearest = exact_neighbours(features[rows[:50]], features, rows, 1, metric)
    np.testing.assert_array_equal(nearest[:, 0], rows[:50])
    assert (distances == 0).all()


def test_a_feature_of_zeros_is_at_cosine_distance_one_from_everything() -> None:
    distances, _ = exact_neighbours(
        np.zeros((1, 4), np.float32), np.eye(4, dtype=np.float32), np.arange(4), 4, "cosine"
    )
    np.testing.assert_array_equal(distances, np.ones((1, 4)))


WITHIN_256_MB = """
import resource, sys
import numpy as np
from indexer.reports.ranking import average_precisions, exact_neighbours

features = np.memmap(sys.argv[1], np.float32, "r", shape=(40_000, 4096))
queries = np.zeros((9000, 4096), np.float32)
rows, labels = np.arange(40_000), np.zeros(40_000, np.int64)
exact_neighbours(queries[:1], features, rows[:1], 1, "euclidean")  # BLAS takes its own memory once
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmData")]
limit = int(line.split()[1]) * 1024 + 256_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
exact_neighbours(queries[:8], features, rows, 10, "cosine")
exact_neighbours(queries, features, rows[:100], 10, "euclidean")
exact_neighbours(queries[:1100], features, rows[:2500], 10, "euclidean")
average_precisions(queries[:8], labels[:8], features, rows, labels, "euclidean")
"""
"""A process that may take 256 MB more than it has. Memory-mapped files do not count, all else
does."""


@pytest.mark.slow  # reads 655 MB
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's data like this")
def test_memory_stays_below_256_mb_for_any_number_of_rows_and_queries(tmp_path: Path) -> None:
    """The features are a sparse file of zeros, 655 MB of them."""
    with (tmp_path / "features").open("wb") as file:
        file.truncate(40_000 * 4096 * 4)
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_256_MB, tmp_path / "features"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_recall_is_the_share_of_the_nearest_that_a_search_finds(
    queries: np.ndarray, features: np.ndarray, rows: np.ndarray
) -> None:
    exact = exact_neighbours(queries, features, rows, 10, "euclidean")
    farther = exact_neighbours(queries, features, rows, 20, "euclidean")[1][:, 10:]
    seven_of_ten = [
        np.concatenate([nearest[:7], others[:3]])[::-1]
        for nearest, others in zip(exact[1], farther, strict=True)
    ]
    all_ten = list(exact[1])
    none = [np.array([], np.int64)] * NUM_QUERIES
    one_repeated = [nearest[:1].repeat(10) for nearest in exact[1]]
    for matches, share in ((seven_of_ten, 0.7), (all_ten, 1), (none, 0), (one_repeated, 0.1)):
        recalls = recall_at_k(matches, exact, queries, features, "euclidean")
        np.testing.assert_allclose(recalls, np.full(NUM_QUERIES, share))


@pytest.mark.parametrize("metric", METRICS)
def test_another_row_as_near_as_the_kth_is_not_a_miss(
    metric: Metric, queries: np.ndarray, features: np.ndarray
) -> None:
    """Three of five rows are equal. Which two of them are among the nearest three is chance."""
    some = features[[1, 2, 2, 2, 3]].copy()
    query = (features[1:2] * 2 + features[2:3]).astype(np.float32)
    exact = exact_neighbours(query, some, np.arange(5), 3, metric)
    assert exact[1].tolist() == [[0, 1, 2]]
    assert recall_at_k([np.array([0, 3, 2])], exact, query, some, metric) == [1]
    assert recall_at_k([np.array([0, 4, 2])], exact, query, some, metric) == pytest.approx([2 / 3])


def test_recall_is_nan_if_there_is_nothing_to_find(
    queries: np.ndarray, features: np.ndarray
) -> None:
    exact = exact_neighbours(queries, features, np.array([], np.int64), 3, "euclidean")
    recalls = recall_at_k(
        [np.array([], np.int64)] * NUM_QUERIES, exact, queries, features, "euclidean"
    )
    assert np.isnan(recalls).all()
    assert np.isnan(mean_of(recalls))


@pytest.mark.parametrize("metric", METRICS)
def test_average_precision_is_that_of_scikit_learn(
    metric: Metric,
    queries: np.ndarray,
    features: np.ndarray,
    rows: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sklearn.metrics import average_precision_score

    queries_per_block = 10
    ranking_bytes = 4 * len(rows) * queries_per_block
    monkeypatch.setattr("indexer.reports.ranking.RANKING_BYTES", ranking_bytes)
    row_labels, query_labels = random_labels(len(rows)), random_labels(NUM_QUERIES)
    precisions = average_precisions(queries, query_labels, features, rows, row_labels, metric)
    expected = [
        average_precision_score(row_labels == label, -brute_force(query, features[rows], metric))
        for query, label in zip(queries, query_labels, strict=True)
    ]
    # A few pairs tie in float32, and are then ranked by row.
    np.testing.assert_allclose(precisions, expected, rtol=1e-5)
    mean, num_left_out = mean_average_precision(
        queries, query_labels, features, rows, row_labels, metric
    )
    assert mean == pytest.approx(np.mean(expected), rel=1e-5)
    assert num_left_out == 0


def test_average_precision_by_hand_with_ties_ranked_by_row() -> None:
    """Rows at distances 1, 2, 2, 2, 3 have labels 0, 1, 0, 1, 0: label 0 is at ranks 1, 3, 5."""
    features = np.array([[1], [2], [-2], [2], [3]], np.float32)
    precisions = average_precisions(
        np.zeros((1, 1), np.float32),
        np.array([0]),
        features,
        np.arange(5),
        np.array([0, 1, 0, 1, 0]),
        "euclidean",
    )
    assert precisions == pytest.approx([(1 / 1 + 2 / 3 + 3 / 5) / 3])


def test_a_query_is_left_out_of_its_own_ranking() -> None:
    features, labels = np.array([[0], [1], [2], [4]], np.float32), np.array([0, 1, 0, 2])
    precisions = average_precisions(
        features, labels, features, np.arange(4), labels, "euclidean", own_rows=np.arange(4)
    )
    np.testing.assert_array_equal(precisions, [1 / 2, np.nan, 1 / 2, np.nan])
    with_itself = average_precisions(features, labels, features, np.arange(4), labels, "euclidean")
    np.testing.assert_allclose(with_itself, [(1 + 2 / 3) / 2, 1, (1 + 2 / 3) / 2, 1])


def test_queries_whose_label_no_item_has_are_left_out_and_counted() -> None:
    features, row_labels = np.array([[0], [1]], np.float32), np.array([0, -1])
    answer = mean_average_precision(
        features[[0, 0, 0]], np.array([0, 9, -1]), features, np.arange(2), row_labels, "euclidean"
    )
    assert answer == (1.0, 2)
    mean, num_left_out = mean_average_precision(
        features, np.array([9, -1]), features, np.arange(2), row_labels, "euclidean"
    )
    assert np.isnan(mean)
    assert num_left_out == 2


def test_average_precision_is_the_mean_of_the_precisions_at_the_hits() -> None:
    assert average_precision(np.array([1, 1, 0, 0], bool)) == 1
    assert average_precision(np.array([0, 0, 1, 1], bool)) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert np.isnan(average_precision(np.zeros(4, bool)))
    assert np.isnan(average_precision(np.empty(0, bool)))


def test_average_precision_by_codes_is_by_the_number_of_bits_that_differ() -> None:
    """Codes differ from the query in 0, 1, 2 and 3 bits. Two of them have its label."""
    query = np.array([[0b00000000, 0b11110000]], np.uint8)
    codes = query ^ np.array([[0b0, 0b0], [0b1, 0b0], [0b0, 0b11], [0b1, 0b11]], np.uint8)
    rows = np.array([2, 3, 5, 7])
    near_and_far = code_average_precisions(
        query, np.array([4]), codes, rows, np.array([4, 0, 4, 0])
    )
    assert near_and_far == pytest.approx([(1 + 2 / 3) / 2])
    far = code_average_precisions(query, np.array([4]), codes, rows, np.array([0, 0, 4, 4]))
    assert far == pytest.approx([(1 / 3 + 2 / 4) / 2])


def test_average_precision_by_codes_is_that_of_scikit_learn() -> None:
    """Codes of two bytes have many ties, which are ranked by row."""
    from sklearn.metrics import average_precision_score

    codes = np.random.default_rng(0).integers(0, 256, (200, 2), np.uint8)
    queries = np.random.default_rng(1).integers(0, 256, (NUM_QUERIES, 2), np.uint8)
    row_labels, query_labels = random_labels(200), random_labels(NUM_QUERIES)
    precisions = code_average_precisions(queries, query_labels, codes, np.arange(200), row_labels)
    bits = np.unpackbits(codes, axis=1).astype(int)
    for query, label, precision in zip(queries, query_labels, precisions, strict=True):
        distances = np.abs(bits - np.unpackbits(query)).sum(axis=1) + np.arange(200) / 1000
        expected = average_precision_score(row_labels == label, -distances)
        assert precision == pytest.approx(expected)


def test_a_query_by_code_is_left_out_of_its_own_ranking() -> None:
    codes = np.array([[0b0], [0b1], [0b11], [0b1111]], np.uint8)
    rows, labels = np.array([1, 4, 6, 9]), np.array([0, 1, 0, 2])
    without = code_average_precisions(codes, labels, codes, rows, labels, own_rows=rows)
    np.testing.assert_array_equal(without, [1 / 2, np.nan, 1 / 2, np.nan])
    with_itself = code_average_precisions(codes, labels, codes, rows, labels)
    np.testing.assert_allclose(with_itself, [(1 + 2 / 3) / 2, 1, (1 + 2 / 3) / 2, 1])


def test_precision_at_k_is_the_share_of_all_matches_with_their_querys_label() -> None:
    def match(label: str | None) -> Match:
        item = Item(1, "a.png", label, 8, 8, "0" * 64, "2026-01-01T00:00:00+00:00")
        return Match(item, 0.0)

    matches = [[match("a"), match("b")], [match("b")], []]
    assert precision_at_k(matches, ["a", "b", "a"]) == pytest.approx(2 / 3)
    assert np.isnan(precision_at_k([[]], ["a"]))


def test_there_is_a_distance_for_every_metric() -> None:
    assert set(DISTANCES) == set(METRICS)
