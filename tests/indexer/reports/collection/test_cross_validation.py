from pathlib import Path

import numpy as np
import pytest

from indexer.reports.collection import cross_validation
from indexer.reports.collection.cross_validation import (
    Settings,
    judged_folds,
    leave_one_out_votes,
    leave_out_of_probe,
    nearest_others,
    probe_settings,
    softmax,
    to_coordinates,
)
from indexer.storage.index import Index
from tests.indexer.items import clusters, make_index, stand_in_model
from training.logistic_regression import fit_logistic, rotate, scale
from training.progress import Bar

SETTINGS: Settings = ("standard", 1e-2)


def bar() -> Bar:
    return Bar("Measuring", 1, is_shown=False)


def test_the_probe_names_items_that_it_was_not_fitted_on() -> None:
    features, names = clusters(3, 45)
    labels = np.array([int(name[-1]) for name in names])
    answers = leave_out_of_probe(features, labels, judged_folds(labels), SETTINGS, bar())
    assert np.allclose(answers.probabilities.sum(axis=1), 1)
    assert (answers.probabilities.argmax(axis=1) == labels).all()
    assert answers.is_right_with_half.mean() > 0.9


def test_random_labels_are_predicted_at_chance() -> None:
    """The probe could learn random labels by heart, so asking about fitted items would show."""
    random = np.random.default_rng(0)
    features = random.gamma(1.0, 1.0, (400, 4096)).astype(np.float32)
    labels = random.integers(0, 4, 400)
    answers = leave_out_of_probe(features, labels, judged_folds(labels), SETTINGS, bar())
    share = np.mean(answers.probabilities.argmax(axis=1) == labels)
    assert share < 0.33  # a quarter, plus three and a half standard deviations
    assert answers.is_right_with_half.mean() < 0.33


def test_the_only_item_of_a_label_is_not_judged() -> None:
    features, names = clusters(2, 21)
    labels = np.array([int(name[-1]) for name in names])
    labels[20] = 2
    folds = judged_folds(labels)
    assert np.flatnonzero(folds < 0).tolist() == [20]
    answers = leave_out_of_probe(features, labels, folds, SETTINGS, bar())
    assert np.flatnonzero(np.isnan(answers.probabilities).any(axis=1)).tolist() == [20]


def test_few_features_are_only_rotated_so_the_fit_is_the_same() -> None:
    features, _ = clusters(2, 40)
    scaled, _, _ = scale(features, "standard")
    assert np.allclose(to_coordinates(features, "standard"), rotate(scaled)[0])


def test_the_main_components_give_nearly_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    features, names = clusters(3, 120, seed=3)
    labels = np.array([int(name[-1]) for name in names])
    full = to_coordinates(features, "standard")
    monkeypatch.setattr(cross_validation, "NUM_COMPONENTS", 20)
    few = to_coordinates(features, "standard")
    assert few.shape == (120, 20)
    probabilities = []
    for coordinates in (full, few):
        weights, bias = fit_logistic(coordinates[:90], labels[:90], 1e-2)
        probabilities.append(softmax(coordinates[90:] @ weights.T + bias))
    assert np.array_equal(probabilities[0].argmax(axis=1), probabilities[1].argmax(axis=1))


def test_settings_come_from_the_items_if_the_index_has_no_probe() -> None:
    features, names = clusters(2, 30)
    labels = np.array([int(name[-1]) for name in names])
    scaling, inverse_penalty = probe_settings(features, labels, None, bar())
    assert scaling in ("standard", "length")
    assert 0 < inverse_penalty < 1


def test_an_item_is_not_its_own_neighbour_even_if_another_has_the_same_feature(
    tmp_path: Path,
) -> None:
    features = np.zeros((4, 4096), np.float32)
    features[:, 0] = [1, 1, 3, 7]
    model = stand_in_model(tmp_path / "model")
    index = Index.open(make_index(tmp_path / "index", model, features, ["a"] * 4))
    nearest = nearest_others(index, index.rows, "euclidean", bar())
    assert nearest.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [2, 0, 1]]
    some = nearest_others(index, index.rows[1:], "euclidean", bar())
    assert some.tolist() == [[1, 2], [0, 2], [1, 0]]  # positions in the rows that were passed


def test_the_number_of_voters_is_the_one_that_is_right_most_often() -> None:
    """The nearest neighbour is always wrong, and the next two are always right."""
    labels = np.arange(40) % 2
    neighbours = np.stack([1 - labels, labels, labels], axis=1)
    votes = leave_one_out_votes(neighbours, labels, judged_folds(labels))
    assert votes.num_voters == 3
    assert np.array_equal(votes.winners, labels)


def test_the_number_of_voters_of_a_fold_is_chosen_by_the_other_folds() -> None:
    """One voter is right outside fold 0 only. In fold 0, three voters would be right."""
    labels = np.arange(40) % 2
    folds = judged_folds(labels)
    is_first = folds == 0
    nearest = np.where(is_first, 1 - labels, labels)
    neighbours = np.stack([nearest, 1 - nearest, 1 - nearest], axis=1)
    votes = leave_one_out_votes(neighbours, labels, folds)
    assert np.array_equal(votes.winners == labels, ~is_first)
