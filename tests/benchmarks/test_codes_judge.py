import numpy as np
import pytest

from benchmarks.codes_judge import Images, Judge, Trial

LABELS = np.array([0, 1, 0, 1])


def judge_of(query: list[float], query_label: int, items: list[list[float]]) -> Judge:
    """A judge of one query and four items with the labels 0, 1, 0, 1."""
    collection = _images(np.array(items, np.float32), LABELS)
    queries = _images(np.array([query], np.float32), np.array([query_label]))
    return Judge(Trial(collection, collection, queries))


def _images(features: np.ndarray, labels: np.ndarray) -> Images:
    return Images(features, np.zeros((len(labels), 3072), np.float32), labels)


def test_scores_by_hand() -> None:
    judge = judge_of([0.0], 0, [[1.0], [2.0], [3.0], [4.0]])
    # The ranking is 3, 0, 1, 2 with the labels 1, 0, 1, 0: hits at ranks 2 and 4.
    scores = judge.score(np.array([[2, 3, 4, 1]], np.uint16))
    assert scores["mAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores["precision@6"] == pytest.approx(2 / 4)
    assert scores["recall10@10"] == 1


def test_a_perfect_ranking_scores_one_and_a_reversed_one_less() -> None:
    judge = judge_of([0.0], 0, [[1.0], [2.0], [3.0], [4.0]])
    perfect = np.array([[0, 2, 1, 3]])
    assert judge.score(perfect)["mAP"] == 1
    assert judge.score(-perfect)["mAP"] == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_ties_go_by_position() -> None:
    judge = judge_of([0.0], 0, [[1.0], [2.0], [3.0], [4.0]])
    # All tie, so the ranking is 0, 1, 2, 3: hits at ranks 1 and 3.
    assert judge.score(np.zeros((1, 4)))["mAP"] == pytest.approx((1 + 2 / 3) / 2)


def test_recall_is_of_the_ten_nearest_features() -> None:
    items = np.arange(30, dtype=np.float32)[:, None]
    images, queries = _images(items, np.zeros(30)), _images(items[:1], np.zeros(1))
    judge = Judge(Trial(images, images, queries))
    # The ranking begins with items 5 to 14: five of the ten nearest, which are items 0 to 9.
    scores = judge.score(np.roll(np.arange(30), 5)[None])
    assert scores["recall10@10"] == pytest.approx(0.5)
    assert scores["recall10@100"] == 1


def test_the_euclidean_distances_rank_as_the_true_ones() -> None:
    random = np.random.default_rng(0)
    items, query = random.random((4, 8)), random.random(8)
    judge = judge_of(query.tolist(), 0, items.tolist())
    true_order = np.argsort(np.linalg.norm(items - query, axis=1))
    assert np.argsort(judge.euclidean[0]).tolist() == true_order.tolist()
