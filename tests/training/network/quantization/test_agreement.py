"""Agreement counts equal classes and equal neighbours, and compares directions."""

import numpy as np
import pytest

from training.network.onnx_session import Floats
from training.network.quantization.agreement import Answers, compare, share_of_nearest


def rows(*values: float) -> Floats:
    """Features on a line, (n, 4)."""
    features = np.zeros((len(values), 4), np.float32)
    features[:, 0] = values
    return features


def test_equal_answers_agree_completely() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 3)).astype(np.float32)
    features = random.normal(size=(6, 4)).astype(np.float32)
    indexed = random.normal(size=(40, 4)).astype(np.float32)
    agreement = compare(Answers(logits, features), Answers(logits, features), indexed)
    assert (agreement.top1, agreement.nearest10) == (1, 1)
    assert agreement.cosine == pytest.approx(1)
    assert (agreement.num_images, agreement.num_indexed) == (6, 40)
    assert agreement.accuracy_float32 is None


def test_classes_directions_and_accuracies_are_compared() -> None:
    one, two = np.eye(2, dtype=np.float32)
    features = np.array([[1, 0], [0, 2], [0, 0]], np.float32)
    turned = np.array([[1, 0], [2, 0], [0, 0]], np.float32)
    agreement = compare(
        Answers(np.stack([one, one, two]), features),
        Answers(np.stack([one, two, two]), turned),
        np.empty((0, 2), np.float32),
        np.array([0, 1, 0]),
    )
    assert agreement.top1 == pytest.approx(2 / 3)
    assert agreement.cosine == pytest.approx(2 / 3)
    assert agreement.accuracy_float32 == pytest.approx(1 / 3)
    assert agreement.accuracy_int8 == pytest.approx(2 / 3)
    assert agreement.nearest10 == 1


def test_the_share_counts_the_rows_that_both_queries_find() -> None:
    indexed = rows(*range(30))
    assert share_of_nearest(rows(0), rows(0), indexed) == 1
    assert share_of_nearest(rows(0), rows(7), indexed) == pytest.approx(0.8)  # 2.5 to 11.5
    assert share_of_nearest(rows(0), rows(29), indexed) == 0
    assert share_of_nearest(rows(0, 0), rows(0, 29), indexed) == pytest.approx(0.5)


def test_a_row_as_far_away_as_the_last_neighbour_counts_too() -> None:
    indexed = rows(*range(9), 9, 9, 9)
    approximate = rows(9.4)  # finds all rows of 9, but not that of 0 and 1
    exact = rows(0)
    assert share_of_nearest(exact, approximate, indexed) == 1


def test_with_fewer_rows_than_neighbours_all_are_found() -> None:
    assert share_of_nearest(rows(0), rows(3), rows(1, 2, 3)) == 1
    assert share_of_nearest(rows(0), rows(3), rows()) == 1
