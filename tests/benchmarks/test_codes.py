import numpy as np
import pytest

from benchmarks.codes import make_trial, measure
from benchmarks.codes_judge import Distances, Images, Judge


def images(count: int) -> Images:
    features = np.arange(count, dtype=np.float32)[:, None]
    return Images(features, np.zeros((count, 1), np.float32), np.arange(count) % 2)


def test_images_that_codes_are_learned_from_do_not_belong_to_the_collection() -> None:
    trial = make_trial(images(20), images(5), num_fitted=8, max_queries=3)
    fitted, collection = trial.fitted.features[:, 0], trial.collection.features[:, 0]
    assert sorted([*fitted, *collection]) == list(range(20))
    assert (len(fitted), len(trial.queries.labels)) == (8, 3)


def test_without_a_number_codes_are_learned_from_the_collection() -> None:
    trial = make_trial(images(20), images(5), num_fitted=0, max_queries=100)
    assert trial.fitted is trial.collection
    assert len(trial.collection.labels) == 20


def test_scores_are_given_as_mean_and_deviation_over_the_seeds() -> None:
    trial = make_trial(images(20), images(4), num_fitted=0, max_queries=4)
    judge = Judge(trial)

    def by_seed(num_bits: int, seed: int) -> Distances:
        """Perfect for the first seed, the reverse for the second."""
        same_label = np.equal.outer(trial.queries.labels, trial.collection.labels)
        return np.logical_not(same_label) if seed == 0 else same_label

    by_length = measure("method", by_seed, judge, [16], num_seeds=2)
    mean, deviation = by_length["16"]["precision@6"]
    assert mean == 0.5
    assert deviation == pytest.approx(0.7071)


def test_a_method_without_random_numbers_runs_once() -> None:
    trial = make_trial(images(20), images(4), num_fitted=0, max_queries=4)
    seeds = []

    def distances(num_bits: int, seed: int) -> Distances:
        seeds.append(seed)
        return Judge(trial).euclidean

    by_length = measure("PCA sign", distances, Judge(trial), [16, 32], num_seeds=3)
    assert seeds == [0, 0]
    assert by_length["32"]["mAP"][1] == 0
