from pathlib import Path

import numpy as np
import pytest

from indexer.reports.collection.answers import answer_left_out
from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import (
    clear_collection,
    open_sample,
    write_collection,
)


def test_neighbours_and_probe_answer_for_each_item(tmp_path: Path) -> None:
    index, sample, _ = open_sample(clear_collection(tmp_path / "index"))
    answers = answer_left_out(index, sample)
    assert answers is not None
    is_wrong = np.isin(sample.rows, [0, 4])
    assert np.array_equal(answers.votes.winners != sample.labels, is_wrong)
    assert np.array_equal(answers.probe.probabilities.argmax(axis=1) != sample.labels, is_wrong)
    for metric, labels in answers.neighbour_labels.items():
        expected = np.mean(labels[:, :6] == sample.labels[:, None])
        assert answers.precisions[metric] == expected


def test_the_precision_of_the_nearest_is_known_for_each_label(tmp_path: Path) -> None:
    features, labels = clusters(3, 60)
    features[2::6] = features[0::6] + 0.01  # half of label 2 looks like label 0
    labels[1] = "alone"
    index, sample, _ = open_sample(write_collection(tmp_path / "index", features, labels))
    answers = answer_left_out(index, sample)
    assert answers is not None
    assert sample.names == ("alone", "label 0", "label 1", "label 2")
    for metric, shares in answers.label_precisions.items():
        nearest = answers.neighbour_labels[metric][:, :6]
        expected = [
            np.mean([nearest[item] == label for item in np.flatnonzero(sample.labels == label)])
            for label in (1, 2, 3)
        ]
        assert shares[0] is None  # its only item is not judged
        assert shares[1:] == pytest.approx(expected)
        assert shares[2] is not None
        assert shares[3] is not None
        assert shares[2] > 0.9 > 0.7 > shares[3]


def test_neighbours_are_judged_only_for_items_whose_label_another_item_has(
    tmp_path: Path,
) -> None:
    features, labels = clusters(2, 20)
    labels[0] = "alone"
    index, sample, _ = open_sample(write_collection(tmp_path / "index", features, labels))
    answers = answer_left_out(index, sample)
    assert answers is not None
    assert answers.is_judged.sum() == 19
    nearest = answers.neighbour_labels["euclidean"][1:, :6]
    assert answers.precisions["euclidean"] == np.mean(nearest == sample.labels[1:, None])


def test_without_two_labels_or_two_items_of_one_there_are_no_answers(tmp_path: Path) -> None:
    features, _ = clusters(3, 3)
    for name, labels in (("none", [None] * 3), ("one", ["a"] * 3), ("each", ["a", "b", "c"])):
        index, sample, _ = open_sample(write_collection(tmp_path / name, features, labels))
        assert answer_left_out(index, sample) is None
    index, sample, _ = open_sample(write_collection(tmp_path / "two", features, ["a", "b", "a"]))
    answers = answer_left_out(index, sample)
    assert answers is not None
    assert answers.is_judged.tolist() == [True, False, True]
