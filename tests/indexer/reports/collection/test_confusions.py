import numpy as np
import pytest

from indexer.metrics import Metric
from indexer.reports.collection.confusions import (
    NUM_EXAMPLES,
    confused_pairs,
    confusion_matrix,
    label_figures,
)
from indexer.reports.collection.findings import ItemName

LABELS = np.array([0, 0, 0, 1, 1, 2])
ANSWERS = np.array([0, 1, 1, 1, 0, 2])
NAMES = ("cat", "dog", "owl")


def item_name(position: int) -> ItemName:
    return ItemName(id=position, path=f"{position}.png", label=NAMES[LABELS[position]])


def test_a_line_counts_the_answers_for_a_label_and_items_that_are_not_judged_are_left_out() -> None:
    matrix = confusion_matrix(LABELS, ANSWERS, np.ones(6, bool), 3)
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]
    is_judged = np.array([True] * 5 + [False])
    assert confusion_matrix(LABELS, ANSWERS, is_judged, 3)[2].tolist() == [0, 0, 0]


def test_the_pair_with_the_most_mistakes_comes_first_with_its_surest_mistake_first() -> None:
    matrix = confusion_matrix(LABELS, ANSWERS, np.ones(6, bool), 3)
    confidences = np.array([0.9, 0.6, 0.8, 0.9, 0.5, 0.9])
    pairs = confused_pairs(LABELS, ANSWERS, confidences, matrix, NAMES, item_name)
    found = [(pair.label, pair.answer, pair.num_mistakes, pair.num_items) for pair in pairs]
    assert found == [("cat", "dog", 2, 3), ("dog", "cat", 1, 2)]
    assert [item.id for item in pairs[0].examples] == [2, 1]


def test_a_pair_has_only_a_few_examples() -> None:
    labels, answers = np.zeros(20, np.int64), np.ones(20, np.int64)
    matrix = confusion_matrix(labels, answers, np.ones(20, bool), 2)

    def name(position: int) -> ItemName:
        return ItemName(id=position, path="", label="cat")

    (pair,) = confused_pairs(labels, answers, np.ones(20), matrix, NAMES[:2], name)
    assert (pair.num_mistakes, len(pair.examples)) == (20, NUM_EXAMPLES)


def test_recall_and_precision_are_read_from_the_matrix() -> None:
    matrix = confusion_matrix(LABELS, ANSWERS, np.ones(6, bool), 3)
    figures = label_figures({"cat": 3, "dog": 2, "owl": 1, "yak": 0}, NAMES, matrix, {})
    recalls = [one.recall for one in figures]
    assert recalls == [pytest.approx(1 / 3), 0.5, 1, None]
    assert figures[1].precision == pytest.approx(1 / 3)


def test_each_label_has_its_own_precision_of_the_nearest() -> None:
    precisions: dict[Metric, list[float | None]] = {
        "euclidean": [0.5, None, 1.0],
        "cosine": [0.25, None, 0.75],
    }
    figures = label_figures({"owl": 1, "cat": 3, "dog": 1, "yak": 1}, NAMES, None, precisions)
    assert [one.precision_at_nearest for one in figures] == [
        {"euclidean": 1.0, "cosine": 0.75},
        {"euclidean": 0.5, "cosine": 0.25},
        {"euclidean": None, "cosine": None},
        {"euclidean": None, "cosine": None},
    ]


def test_a_label_is_small_below_ten_images_or_a_quarter_of_the_median() -> None:
    counts = {"a": 100, "b": 120, "c": 24, "d": 26, "e": 110}
    assert [one.label for one in label_figures(counts, (), None, {}) if one.is_small] == ["c"]
    few = label_figures({"a": 9, "b": 10, "c": 12}, (), None, {})
    assert [one.label for one in few if one.is_small] == ["a"]
