"""Logistic regression on scaled features: the same answers as scikit-learn's own pipeline."""

import numpy as np
import pytest

from indexer.metrics import unit
from tests.indexer.items import clusters
from tests.indexer.learned.scikit_learn import expected_probabilities
from training.logistic_regression import (
    SCALINGS,
    Scaling,
    fit_linear,
    fit_logistic,
    rotate,
    scale,
)


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("num_labels", [2, 3])
def test_weights_give_scikit_learns_probabilities_for_features_that_are_not_scaled(
    num_labels: int, scaling: Scaling
) -> None:
    features, _ = clusters(num_labels, 40)
    labels = np.arange(40) % num_labels
    queries, _ = clusters(num_labels, 10, seed=7)
    weights, bias = fit_linear(features, labels, scaling, 1e-2)
    assert (weights.shape, bias.shape) == ((num_labels, 4096), (num_labels,))
    assert weights.dtype == bias.dtype == np.float32
    logits = (unit(queries) if scaling == "length" else queries) @ weights.T + bias
    expected = expected_probabilities(features, labels, queries, scaling, 1e-2)
    np.testing.assert_allclose(probabilities(logits), expected, atol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_features_have_mean_zero_and_an_average_variance_of_one(scaling: Scaling) -> None:
    features, _ = clusters(3, 50)
    features[:, 5] = 2  # a number that never changes
    scaled, mean, divisor = scale(features, scaling)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    variances = scaled.var(axis=0, dtype=np.float64)
    if scaling == "standard":
        np.testing.assert_allclose(np.delete(variances, 5), 1, rtol=1e-4)
        assert (variances[5], divisor[5]) == (0, 1)
    else:
        assert variances.mean() == pytest.approx(1, rel=1e-3)
        assert len(np.unique(divisor)) == 1
    source = unit(features) if scaling == "length" else features
    np.testing.assert_allclose(scaled * divisor + mean, source, atol=1e-4)


def test_rotated_features_keep_their_lengths_and_angles_in_fewer_numbers() -> None:
    features, _ = clusters(2, 12)
    coordinates, basis = rotate(features)
    assert (coordinates.shape, basis.shape) == ((12, 12), (4096, 12))
    np.testing.assert_allclose(coordinates @ coordinates.T, features @ features.T.astype(float))
    np.testing.assert_allclose(coordinates @ basis.T, features, atol=1e-9)


def test_two_labels_have_two_rows_of_weights() -> None:
    features = np.array([[-2.0], [-1], [1], [2]])
    weights, bias = fit_logistic(features, np.array([0, 0, 1, 1]), 1.0)
    assert (weights.shape, bias.shape) == ((2, 1), (2,))
    assert (weights[0, 0], bias[0]) == (0, 0)
    assert weights[1, 0] > 0
