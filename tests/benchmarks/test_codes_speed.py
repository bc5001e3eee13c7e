import numpy as np

from benchmarks.codes_speed import K, recall, recall_by_distance
from indexer.search.searcher import Match
from indexer.storage.index import Item


def match(id: int) -> Match:
    item = Item(id=id, path="", label=None, width=1, height=1, sha256="", added_at="")
    return Match(item, 0.0)


def test_recall_is_the_mean_share_of_the_nearest_ids() -> None:
    all_of_them = [[match(id) for id in range(K)]]
    half = [[match(id) for id in range(K // 2, K + K // 2)]]
    nearest = set(range(K))
    assert recall([all_of_them], [nearest]) == 1
    assert recall([all_of_them, half], [nearest, nearest]) == 0.75


def test_recall_by_distance_counts_ties_and_leaves_out_missing_matches() -> None:
    distances = np.array([[1, 2, 2, 3, 3, 3, 3, 4, 4, 0]])
    positions = np.array([[5, 6, 7, 8, 9, 10, 11, 12, 13, -1]])
    assert recall_by_distance([(distances, positions)], [3]) == 0.7
