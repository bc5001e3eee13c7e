import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import NearestNeighbors

from benchmarks.mislabelled import GOAL, plant, share_found
from indexer.reports.collection.mislabelled import find_mislabelled, neighbour_counts


def test_planted_wrong_labels_of_digits_are_listed_first() -> None:
    digits = load_digits()
    pixels, labels = digits.data / 16, digits.target.astype(np.int64)
    labels, is_planted = plant(labels, 10, seed=3)
    probabilities = cross_val_predict(
        LogisticRegression(C=0.1), pixels, labels, cv=5, method="predict_proba"
    )
    nearest = NearestNeighbors(n_neighbors=26).fit(pixels).kneighbors(return_distance=False)
    suspicion = find_mislabelled(labels, probabilities, labels[nearest])
    share = share_found(suspicion.scores, is_planted)
    assert share is not None
    assert share > 0.95 > GOAL
    assert suspicion.is_suspected[is_planted].mean() > 0.5
    assert suspicion.is_suspected[~is_planted].mean() < 0.01
    found = suspicion.is_suspected & is_planted
    assert (suspicion.suggestions[found] == digits.target[found]).mean() > 0.95


def test_both_opinions_count() -> None:
    """The probe doubts items 0 and 1, and the neighbours doubt items 0 and 2."""
    labels = np.array([0, 0, 0, 0])
    probabilities = np.array([[0.01, 0.99], [0.01, 0.99], [0.99, 0.01], [0.99, 0.01]])
    neighbours = np.array([[1] * 25, [0] * 25, [1] * 25, [0] * 25])
    suspicion = find_mislabelled(labels, probabilities, neighbours)
    assert suspicion.is_suspected.tolist() == [True, False, False, False]
    assert suspicion.scores[0] == suspicion.scores.max()
    assert suspicion.scores[3] == suspicion.scores.min()
    assert suspicion.suggestions.tolist() == [1, 1, 1, 1]


def test_an_item_that_is_not_judged_is_the_least_suspicious() -> None:
    probabilities = np.array([[np.nan, np.nan], [0.9, 0.1], [0.0, 1.0]])
    neighbours = np.array([[1] * 25, [0] * 25, [1] * 25])
    suspicion = find_mislabelled(np.array([0, 0, 0]), probabilities, neighbours)
    assert suspicion.is_suspected.tolist() == [False, False, True]
    assert suspicion.scores[0] == -np.inf


def test_only_the_nearest_neighbours_are_counted() -> None:
    neighbours = np.array([[0] * 20 + [1] * 5 + [2] * 10, [2] * 35])
    assert neighbour_counts(neighbours, 3).tolist() == [[20, 5, 0], [0, 0, 25]]
