"""Logistic regression on scaled features. The weights include the scaling.

Fitting needs scikit-learn, which is in the `full` extra.
"""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.array_types import Doubles, Floats, Rows
from indexer.learned.probe import Scaling
from indexer.metrics import unit
from training.network.model import NUM_FEATURES


def fit_linear(
    features: Floats, labels: Rows, scaling: Scaling, inverse_penalty: float
) -> tuple[Floats, Floats]:
    """Fit weights (labels, 4096) and bias (labels,) that can be applied to unscaled features.

    With `length` scaling, they can be applied to features that are scaled to length 1, and not
    scaled in any other way.
    """
    scaled, mean, divisor = scale(features, scaling)
    if len(scaled) < NUM_FEATURES:
        coordinates, basis = rotate(scaled)
        weights, bias = fit_logistic(coordinates, labels, inverse_penalty)
        weights = weights @ basis.T
    else:
        weights, bias = fit_logistic(scaled, labels, inverse_penalty)
    weights = weights / divisor
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


def scale(features: Floats, scaling: Scaling) -> tuple[Floats, Doubles, Doubles]:
    """Scale features (n, 4096). Return the scaled features, the mean and the divisor.

    The mean (4096,) was subtracted, and the result was divided by the divisor (4096,). Both contain
    float32 values, returned as doubles.
    """
    if scaling == "length":
        features = unit(features)
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    if scaling == "length":
        deviation = np.full_like(deviation, np.sqrt(np.mean(deviation**2)))
    mean_32 = mean.astype(np.float32)
    divisor_32 = np.where(deviation > 0, deviation, 1).astype(np.float32)
    scaled = features - mean_32
    scaled /= divisor_32
    return scaled, mean_32.astype(np.float64), divisor_32.astype(np.float64)


def rotate(features: Floats) -> tuple[Doubles, Doubles]:
    """Coordinates (n, m) of features in an orthonormal basis (4096, m) of their span.

    m is the smaller of n and 4096. The penalty depends only on the length of the weights, and a
    rotation does not change this length. Therefore a fit to the coordinates has the same result as
    a fit to the features. For few items, the fit to the coordinates is faster.
    """
    basis, coordinates = np.linalg.qr(features.T.astype(np.float64))
    return np.ascontiguousarray(coordinates.T), basis


def fit_logistic(
    features: npt.NDArray[np.floating[Any]], labels: Rows, inverse_penalty: float
) -> tuple[Doubles, Doubles]:
    """Fit multinomial weights (labels, D) and bias (labels,) to features (n, D).

    `inverse_penalty` is scikit-learn's C. A larger value fits the data more closely.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # After 300 iterations, the probabilities hardly change.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=inverse_penalty, max_iter=300, tol=1e-6).fit(features, labels)
    weights, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weights) == 1:  # two labels; the sigmoid of one logit is the softmax of 0 and that logit
        weights, bias = np.vstack([0 * weights, weights]), np.append(0 * bias, bias)
    return weights, bias
