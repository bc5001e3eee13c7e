import numpy as np

from benchmarks.made_up import made_up_blocks
from benchmarks.search_kinds import K, recall_at_k


def test_recall_is_the_share_of_the_nearest_that_were_found() -> None:
    exact = [list(range(K)), list(range(K))]
    assert recall_at_k(exact, exact) == 1
    half = [list(range(K // 2)) + [100 + id for id in range(K // 2)], list(range(K))]
    assert recall_at_k(half, exact) == 0.75


def test_made_up_features_are_not_negative_and_half_zero() -> None:
    features = np.concatenate(list(made_up_blocks(50, seed=0, num_items=1000)))
    assert features.shape == (50, 4096)
    assert features.dtype == np.float32
    assert features.min() == 0
    assert 0.4 < np.mean(features == 0) < 0.6


def test_queries_with_another_seed_lie_in_the_same_clusters() -> None:
    items = np.concatenate(list(made_up_blocks(100, seed=0, num_items=200)))
    queries = np.concatenate(list(made_up_blocks(10, seed=1, num_items=200)))
    similarities = np.corrcoef(np.concatenate([queries, items]))[:10, 10:]
    assert np.all(similarities.max(axis=1) > similarities.min(axis=1) + 0.3)
