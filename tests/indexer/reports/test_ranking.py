import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from indexer.metrics import DISTANCES, METRICS, Metric
from indexer.reports.ranking import (
    average_precisions,
    exact_neighbours,
    mean_of,
    recall_at_k,
)

NUM_ROWS, NUM_QUERIES, NUM_LABELS = 2500, 23, 5


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """More rows than a block holds, of 64 numbers, most of them 0 as after a ReLU."""
    return np.maximum(np.random.default_rng(0).normal(-0.5, 2, (NUM_ROWS, 64)), 0).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.maximum(np.random.default_rng(1).normal(-0.5, 2, (NUM_QUERIES, 64)), 0).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Nine in ten rows: the others have been removed."""
    return np.flatnonzero(np.arange(NUM_ROWS) % 10 != 3)


def mean_average_precision(
    queries: np.ndarray,
    query_labels: np.ndarray,
    features: np.ndarray,
    rows: np.ndarray,
    row_labels: np.ndarray,
    metric: Metric,
) -> tuple[float, int]:
    """mAP over the queries whose label some row has, and the number of the others; NaN where there are only others."""
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
    distances, nearest = exact_neighbours(queries, features, rows, 20, metric)
    for query, found, found_rows in zip(queries, distances, nearest, strict=True):
        wanted = brute_force(query, features[rows], metric)
        order = np.argsort(wanted)[:20]
        np.testing.assert_array_equal(found_rows, rows[order])
        np.testing.assert_allclose(found, wanted[order], rtol=1e-9)


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


@pytest.mark.slow  # reads 655 MB
def test_memory_stays_below_256_mb_however_many_rows_and_queries_there_are(tmp_path: Path) -> None:
    """The features are a file of zeros that takes no room, 655 MB of them."""
    with (tmp_path / "features").open("wb") as file:
        file.truncate(40_000 * 4096 * 4)
    features = np.memmap(tmp_path / "features", np.float32, "r", shape=(40_000, 4096))
    queries = np.zeros((1100, 4096), np.float32)
    tracemalloc.start()
    try:
        exact_neighbours(queries[:8], features, np.arange(40_000), 10, "cosine")
        exact_neighbours(queries, features, np.arange(2500), 10, "euclidean")
        average_precisions(
            queries[:8],
            np.zeros(8, np.int64),
            features,
            np.arange(40_000),
            np.zeros(40_000, np.int64),
            "euclidean",
        )
        assert tracemalloc.get_traced_memory()[1] < 256e6
    finally:
        tracemalloc.stop()


def test_recall_is_the_share_of_the_nearest_that_was_found(
    queries: np.ndarray, features: np.ndarray, rows: np.ndarray
) -> None:
    exact = exact_neighbours(queries, features, rows, 10, "euclidean")
    farther = exact_neighbours(queries, features, rows, 20, "euclidean")[1][:, 10:]
    found = [
        np.concatenate([nearest[:7], others[:3]])[::-1]
        for nearest, others in zip(exact[1], farther, strict=True)
    ]
    np.testing.assert_allclose(recall_at_k(found, exact, queries, features, "euclidean"), 0.7)
    np.testing.assert_allclose(
        recall_at_k(list(exact[1]), exact, queries, features, "euclidean"), 1
    )
    np.testing.assert_allclose(
        recall_at_k([np.array([], np.int64)] * NUM_QUERIES, exact, queries, features, "euclidean"),
        0,
    )
    np.testing.assert_allclose(
        recall_at_k(
            [nearest[:1].repeat(10) for nearest in exact[1]], exact, queries, features, "euclidean"
        ),
        0.1,
    )


@pytest.mark.parametrize("metric", METRICS)
def test_another_row_as_near_as_the_kth_is_no_miss(
    metric: Metric, queries: np.ndarray, features: np.ndarray
) -> None:
    """Five rows, three of them the same: which two of these come with the nearest among the first three is chance."""
    some = features[[1, 2, 2, 2, 3]].copy()
    query = (features[1:2] * 2 + features[2:3]).astype(np.float32)
    exact = exact_neighbours(query, some, np.arange(5), 3, metric)
    assert exact[1].tolist() == [[0, 1, 2]]
    assert recall_at_k([np.array([0, 3, 2])], exact, query, some, metric) == [1]
    assert recall_at_k([np.array([0, 4, 2])], exact, query, some, metric) == pytest.approx([2 / 3])


def test_there_is_no_recall_where_there_is_nothing_to_find(
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

    monkeypatch.setattr(
        "indexer.reports.ranking.RANKING_BYTES", 4 * len(rows) * 10
    )  # ten queries a block
    generator = np.random.default_rng(2)
    row_labels, query_labels = (
        generator.integers(0, NUM_LABELS, len(rows)),
        generator.integers(0, NUM_LABELS, NUM_QUERIES),
    )
    found = average_precisions(queries, query_labels, features, rows, row_labels, metric)
    wanted = [
        average_precision_score(row_labels == label, -brute_force(query, features[rows], metric))
        for query, label in zip(queries, query_labels, strict=True)
    ]
    np.testing.assert_allclose(
        found, wanted, rtol=1e-5
    )  # a few pairs tie in float32, and go by row
    mean, num_left_out = mean_average_precision(
        queries, query_labels, features, rows, row_labels, metric
    )
    assert mean == pytest.approx(np.mean(wanted), rel=1e-5)
    assert num_left_out == 0


def test_average_precision_by_hand_ties_going_by_row() -> None:
    """Rows at distances 1, 2, 2, 2, 3 of labels 0, 1, 0, 1, 0: label 0 is at ranks 1, 3 and 5."""
    features = np.array([[1], [2], [-2], [2], [3]], np.float32)
    found = average_precisions(
        np.zeros((1, 1), np.float32),
        np.array([0]),
        features,
        np.arange(5),
        np.array([0, 1, 0, 1, 0]),
        "euclidean",
    )
    assert found == pytest.approx([(1 / 1 + 2 / 3 + 3 / 5) / 3])


def test_a_query_is_left_out_of_its_own_ranking() -> None:
    features, labels = np.array([[0], [1], [2], [4]], np.float32), np.array([0, 1, 0, 2])
    found = average_precisions(
        features, labels, features, np.arange(4), labels, "euclidean", own_rows=np.arange(4)
    )
    np.testing.assert_array_equal(found, [1 / 2, np.nan, 1 / 2, np.nan])
    with_itself = average_precisions(features, labels, features, np.arange(4), labels, "euclidean")
    np.testing.assert_allclose(with_itself, [(1 + 2 / 3) / 2, 1, (1 + 2 / 3) / 2, 1])


def test_queries_whose_label_no_item_has_are_left_out_and_counted() -> None:
    features, row_labels = np.array([[0], [1]], np.float32), np.array([0, -1])
    found = mean_average_precision(
        features[[0, 0, 0]], np.array([0, 9, -1]), features, np.arange(2), row_labels, "euclidean"
    )
    assert found == (1.0, 2)
    mean, num_left_out = mean_average_precision(
        features, np.array([9, -1]), features, np.arange(2), row_labels, "euclidean"
    )
    assert np.isnan(mean)
    assert num_left_out == 2


def test_there_is_a_distance_for_every_metric() -> None:
    assert set(DISTANCES) == set(METRICS)
