"""Every form of every distance, compared with its definition; and the options of a search."""

import numpy as np
import pytest

from indexer.array_types import Floats
from indexer.metrics import (
    DEFAULT_RERANK,
    DISTANCES,
    MAX_FLIPS,
    METRICS,
    QUERY_METRICS,
    HammingOnlyError,
    Metric,
    QueryMetric,
    parse_metric,
    resolve_rerank,
    unit,
)
from tests.indexer.definitions import distances_by_definition
from training.errors import UserError

NUM_FEATURES, NUM_DIMENSIONS = 40, 64
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.gamma(1.0, 2.0, (NUM_FEATURES, NUM_DIMENSIONS)).astype(np.float32)
FEATURES[5] = 0
QUERIES = RANDOM.gamma(1.0, 2.0, (3, NUM_DIMENSIONS)).astype(np.float32)


def test_every_metric_between_features_has_a_distance() -> None:
    assert tuple(DISTANCES) == METRICS
    assert (*METRICS, "hamming") == QUERY_METRICS


@pytest.mark.parametrize("metric", METRICS)
def test_distances_to_a_query_are_those_of_the_definition(metric: Metric) -> None:
    expected = distances_by_definition(QUERIES, FEATURES, metric)
    for query, row in zip(QUERIES, expected, strict=True):
        distances = DISTANCES[metric].to_query(query.astype(np.float64), _doubles(FEATURES))
        np.testing.assert_allclose(distances, row, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_by_a_matrix_product_are_those_of_the_definition(metric: Metric) -> None:
    matrix = DISTANCES[metric].matrix(_doubles(QUERIES), _doubles(FEATURES))
    expected = distances_by_definition(QUERIES, FEATURES, metric)
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_a_feature_is_at_distance_zero_from_itself_and_never_below(metric: Metric) -> None:
    doubles = _doubles(FEATURES[:5])
    matrix = DISTANCES[metric].matrix(doubles, doubles)
    assert np.all(np.diag(matrix) == 0)
    assert np.all(matrix >= 0)
    assert DISTANCES[metric].to_query(doubles[2], doubles)[2] == 0


@pytest.mark.parametrize("metric", METRICS)
def test_keys_have_the_order_of_the_distances_and_lie_between_their_bounds(metric: Metric) -> None:
    lengths = np.linalg.norm(FEATURES, axis=1).astype(np.float32)
    lower, upper = DISTANCES[metric].key_bounds(QUERIES, FEATURES, lengths)
    distances = distances_by_definition(QUERIES, FEATURES, metric)
    # The keys in doubles: a distance without the part that is the same for all features.
    lengths_of_queries = np.linalg.norm(_doubles(QUERIES), axis=1, keepdims=True)
    keys = (
        distances**2 - lengths_of_queries**2
        if metric == "euclidean"
        else (distances - 1) * lengths_of_queries
    )
    assert np.all(lower <= keys)
    assert np.all(keys <= upper)
    # The bounds are tight enough to leave out almost everything.
    spread = np.ptp(keys, axis=1, keepdims=True)
    assert np.all(upper - lower < 0.05 * spread)


@pytest.mark.parametrize("metric", METRICS)
def test_euclidean_distances_between_the_stored_vectors_have_the_same_order(
    metric: Metric,
) -> None:
    as_euclidean = DISTANCES[metric].as_euclidean
    # A feature of zeros has no direction, so its position in the order by cosine is arbitrary.
    features = np.delete(FEATURES, 5, axis=0)
    stored = distances_by_definition(as_euclidean(QUERIES), as_euclidean(features), "euclidean")
    expected = distances_by_definition(QUERIES, features, metric)
    assert np.array_equal(np.argsort(stored, axis=1), np.argsort(expected, axis=1))


def test_unit_vectors_have_length_one_and_zeros_stay() -> None:
    lengths = np.linalg.norm(unit(FEATURES), axis=1)
    np.testing.assert_allclose(np.delete(lengths, 5), 1, rtol=1e-6)
    assert lengths[5] == 0
    assert unit(FEATURES).dtype == np.float32


def test_a_metric_is_one_of_three_names() -> None:
    assert [parse_metric(name) for name in QUERY_METRICS] == list(QUERY_METRICS)
    with pytest.raises(UserError, match="must be one of euclidean, cosine, hamming, got 'taxi'"):
        parse_metric("taxi")


def test_hamming_reranks_by_default_and_other_metrics_never() -> None:
    assert resolve_rerank("hamming", None, None) == DEFAULT_RERANK
    assert resolve_rerank("hamming", 0, MAX_FLIPS) == 0
    assert [resolve_rerank(metric, None, None) for metric in METRICS] == [None] * len(METRICS)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("option", ["rerank", "flips"])
def test_rerank_and_flips_need_hamming(metric: QueryMetric, option: str) -> None:
    options = {"rerank": None, "flips": None} | {option: 0}
    with pytest.raises(HammingOnlyError, match=f"{option} works with the metric hamming only"):
        resolve_rerank(metric, **options)


@pytest.mark.parametrize(("rerank", "flips"), [(-1, None), (None, -1), (None, MAX_FLIPS + 1)])
def test_rerank_and_flips_out_of_range_are_refused(rerank: int | None, flips: int | None) -> None:
    with pytest.raises(UserError, match="must be"):
        resolve_rerank("hamming", rerank, flips)


def _doubles(features: Floats) -> np.ndarray:
    return features.astype(np.float64)
