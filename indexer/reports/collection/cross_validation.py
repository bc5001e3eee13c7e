"""Predict the label of each item while the item is left out.

A probe is fitted on the other folds (5-fold cross-validation). The neighbours vote without the item
itself (leave-one-out). An item that is the only one of its label cannot be predicted, so it is not
judged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.array_types import Doubles, Floats, Rows
from indexer.learned.held_out import Mask
from indexer.learned.probe import Probe
from indexer.learned.probe_fitting import count_votes
from indexer.metrics import Metric
from indexer.search.exact import find_nearest
from indexer.storage.index import Index
from training.logistic_regression import (
    INVERSE_PENALTIES,
    SCALINGS,
    Scaling,
    choose_settings,
    fit_logistic,
    rotate,
    scale,
    stratified_folds,
    stratified_sample,
)
from training.progress import Bar

Settings = tuple[Scaling, float]
"""How a probe is fitted: the scaling, and the inverse penalty."""

NUM_FOLDS = 5
SEED = 0
MAX_TUNING_ITEMS = 600
"""Maximum number of items that choose the settings."""
NUM_COMPONENTS = 256
"""Maximum number of dimensions in which a probe is fitted."""
NUM_PROBE_STEPS = len(SCALINGS) * len(INVERSE_PENALTIES) + 2 * NUM_FOLDS
"""Number of steps that `probe_settings` and `leave_out_of_probe` add to a progress bar."""
NUMS_VOTERS = (1, 3, 5, 9, 15, 25)
"""Candidates for the number of neighbours that vote."""
NUM_NEIGHBOURS = max(NUMS_VOTERS)
NEIGHBOUR_BLOCK_ITEMS = 1024
"""Number of items whose neighbours are searched at a time. Their features take 16 MB."""


@dataclass(frozen=True, kw_only=True)
class ProbeAnswers:
    """The answers of a probe for items that it was not fitted on."""

    probabilities: Doubles
    """(n, labels). The lines of items that are not judged are NaN."""
    is_right_with_half: Mask
    """(n,). Whether the answer is right if only half of the other items are used for the fit."""
    scaling: Scaling
    inverse_penalty: float


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The answers of the nearest neighbours, without the item itself."""

    num_voters: int
    """The candidate in NUMS_VOTERS that is right for the most items."""
    winners: Rows
    """(n,). For each fold, the number of voters is chosen by the items of the other folds."""


def judged_folds(labels: Rows) -> Rows:
    """The fold of each item, (n,). It is -1 for an item that is not judged."""
    return stratified_folds(labels, NUM_FOLDS)


def leave_out_of_probe(
    features: Floats, labels: Rows, folds: Rows, settings: Settings, bar: Bar
) -> ProbeAnswers:
    """Fit a probe without each fold, and ask it about the fold.

    `features` (n, 4096) have the `labels` (n,) 0, 1, ..., at least two. Scaling and components do
    not depend on the labels, so all folds share them.
    """
    num_labels = int(labels.max()) + 1
    scaling, inverse_penalty = settings
    coordinates = to_coordinates(features, scaling)
    probabilities = np.full((len(labels), num_labels), np.nan)
    is_right_with_half = np.zeros(len(labels), bool)
    for fold in range(NUM_FOLDS):
        asked, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        half = others[stratified_sample(labels[others], max(len(others) // 2, num_labels))]
        if len(asked):
            weights, bias = fit_logistic(coordinates[others], labels[others], inverse_penalty)
            probabilities[asked] = softmax(coordinates[asked] @ weights.T + bias)
            weights, bias = fit_logistic(coordinates[half], labels[half], inverse_penalty)
            answers = (coordinates[asked] @ weights.T + bias).argmax(axis=1)
            is_right_with_half[asked] = answers == labels[asked]
        bar.advance(2)
    return ProbeAnswers(
        probabilities=probabilities,
        is_right_with_half=is_right_with_half,
        scaling=scaling,
        inverse_penalty=inverse_penalty,
    )


def probe_settings(features: Floats, labels: Rows, probe: Probe | None, bar: Bar) -> Settings:
    """The settings of the index's own probe, or else those that MAX_TUNING_ITEMS items choose."""
    if probe is not None:
        return probe.facts.scaling, probe.facts.inverse_penalty
    chosen = stratified_sample(labels, MAX_TUNING_ITEMS)
    return choose_settings(features[chosen], labels[chosen], bar)


def to_coordinates(features: Floats, scaling: Scaling) -> npt.NDArray[np.floating[Any]]:
    """Scaled features in few dimensions, which makes a fit much faster, (n, at most 256).

    Up to NUM_COMPONENTS features are rotated, and a fit stays the same. More features are projected
    on their principal components.
    """
    from sklearn.decomposition import PCA

    scaled, _, _ = scale(features, scaling)
    if len(scaled) <= NUM_COMPONENTS:
        return rotate(scaled)[0]
    components = PCA(
        NUM_COMPONENTS, svd_solver="randomized", iterated_power=3, random_state=SEED
    ).fit_transform(scaled)
    coordinates: Floats = components.astype(np.float32)
    return coordinates


def softmax(logits: npt.NDArray[np.floating[Any]]) -> Doubles:
    """The probabilities of logits, (n, labels) each."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: Doubles = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def nearest_others(index: Index, rows: Rows, metric: Metric, bar: Bar) -> Rows:
    """The positions in `rows` (n,) of the nearest other rows of each row, (n, k).

    The nearest comes first. k is NUM_NEIGHBOURS, or n - 1 if that is less.
    """
    k = min(NUM_NEIGHBOURS, len(rows) - 1)
    nearest = np.empty((len(rows), k), np.int64)
    for start in range(0, len(rows), NEIGHBOUR_BLOCK_ITEMS):
        block = rows[start : start + NEIGHBOUR_BLOCK_ITEMS]
        neighbours = find_nearest(index, rows, index.features[block], k + 1, metric)
        for number, (_, found) in enumerate(neighbours):
            others = found[found != block[number]][:k]
            nearest[start + number] = np.searchsorted(rows, others)
        bar.advance(1)
    return nearest


def leave_one_out_votes(neighbour_labels: Rows, labels: Rows, folds: Rows) -> Votes:
    """Let the neighbours of each item vote. `neighbour_labels` (n, k) has the nearest first."""
    numbers = [count for count in NUMS_VOTERS if count <= neighbour_labels.shape[1]]
    winners = np.stack([count_votes(neighbour_labels[:, :count]) for count in numbers])
    is_right = winners == labels  # (candidates, n)

    def best(is_asked: Mask) -> int:
        return int(is_right[:, is_asked].sum(axis=1).argmax())

    is_judged = folds >= 0
    chosen = winners[best(is_judged)].copy()
    for fold in range(NUM_FOLDS):
        is_in_fold = folds == fold
        chosen[is_in_fold] = winners[best(is_judged & ~is_in_fold), is_in_fold]
    return Votes(num_voters=numbers[best(is_judged)], winners=chosen)
