"""Logistic regression on scaled features, for the probe and for a new last layer.

The weights include the scaling. Scaling and penalty are chosen by cross-validation.

Fitting needs scikit-learn, which is in the `full` extra.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from training.progress import Bar

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Scaling = Literal["standard", "length"]
SCALINGS: tuple[Scaling, ...] = ("standard", "length")
"""How features are scaled before the fit. With `standard`, each of the 4096 numbers gets mean 0 and
variance 1. With `length`, each feature is first scaled to length 1. Then each number gets mean 0,
and the average variance of the numbers becomes 1."""
MAX_TUNING_ITEMS = 2000
NUM_FOLDS = 3
SEED = 0
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Candidates for scikit-learn's C, for features with variance 1."""


def fit_linear(
    features: Floats, labels: Integers, scaling: Scaling, inverse_penalty: float
) -> tuple[Floats, Floats]:
    """Fit weights (labels, 4096) and bias (labels,) that can be applied to unscaled features.

    With `length` scaling, they can be applied to features that are scaled to length 1, and not
    scaled in any other way.
    """
    scaled, mean, divisor = scale(features, scaling)
    if len(scaled) < scaled.shape[1]:
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
    from sklearn.preprocessing import normalize

    if scaling == "length":
        features = normalize(features)
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
    features: npt.NDArray[np.floating[Any]], labels: Integers, inverse_penalty: float
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


def choose_settings(
    features: Floats, labels: Integers, bar: Bar, scalings: Sequence[Scaling] = SCALINGS
) -> tuple[Scaling, float]:
    """Choose the scaling and inverse penalty with the highest log-likelihood of left-out folds."""
    chosen = stratified_sample(labels, MAX_TUNING_ITEMS)
    features, labels = features[chosen], labels[chosen]
    folds = stratified_folds(labels)
    best: tuple[float, Scaling, float] = (-np.inf, scalings[0], 1e-2)
    for scaling in scalings:
        # All folds share one scale, because it does not depend on the labels. In a basis of their
        # span, few items have few coordinates, and the fit is the same.
        coordinates, _ = rotate(scale(features, scaling)[0])
        for inverse_penalty in INVERSE_PENALTIES:
            likelihoods = [
                _log_likelihoods(coordinates, labels, folds == fold, inverse_penalty)
                for fold in range(NUM_FOLDS)
                if (folds == fold).any()
            ]
            if likelihoods:
                mean = float(np.mean(np.concatenate(likelihoods)))
                if mean > best[0]:
                    best = mean, scaling, inverse_penalty
            bar.advance(1)
    return best[1:]


def _log_likelihoods(
    features: Doubles, labels: Integers, is_left_out: npt.NDArray[np.bool_], inverse_penalty: float
) -> Doubles:
    """The log-likelihoods of the left-out items' labels, (n,).

    The probe is fitted on the other items. The result is empty if they have fewer than two labels.
    """
    kept, kept_labels = np.unique(labels[~is_left_out], return_inverse=True)
    if len(kept) < 2:
        return np.empty(0)
    weights, bias = fit_logistic(features[~is_left_out], kept_labels, inverse_penalty)
    logits = features[is_left_out] @ weights.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    columns = np.searchsorted(kept, labels[is_left_out])
    likelihoods: Doubles = logits[np.arange(len(logits)), columns] - np.log(
        np.exp(logits).sum(axis=1)
    )
    return likelihoods


def stratified_sample(labels: Integers, count: int) -> Integers:
    """A sample of at most `count` positions of items. The sample is always the same.

    Each label keeps its share of the items, but at least one item.
    """
    share_before = np.empty(len(labels))
    for positions in _shuffled_by_label(labels):
        share_before[positions] = np.arange(len(positions)) / len(positions)
    return np.argsort(share_before, kind="stable")[:count]


def stratified_folds(labels: Integers, num_folds: int = NUM_FOLDS) -> Integers:
    """The fold in which each item is left out, (n,). It is always the same.

    The items of a label are spread evenly over the folds. If a label has only one item, its fold is
    -1: it is never left out.
    """
    folds = np.empty(len(labels), np.int64)
    for positions in _shuffled_by_label(labels):
        folds[positions] = np.arange(len(positions)) % num_folds if len(positions) > 1 else -1
    return folds


def _shuffled_by_label(labels: Integers) -> Iterator[Integers]:
    """The positions of each label's items, in a random order that is always the same."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    for label in np.unique(labels):
        yield shuffled[labels[shuffled] == label]
