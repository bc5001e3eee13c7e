"""Exact search, beside NumPy's brute force."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.metrics import METRICS, Metric
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from tests.indexer.items import made_up_item
from training.errors import UserError

NUM_ITEMS = 60


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).gamma(1.0, 2.0, (NUM_ITEMS, 4096)).astype(np.float32)


@pytest.fixture(scope="module")
def index(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, features: np.ndarray
) -> Index:
    """Sixty made-up items, of which number 7 has been removed again."""
    directory, ids = tmp_path_factory.mktemp("made-up") / "index", dict[int, int]()
    with IndexWriter.open(directory, tiny_model) as writer:
        for number, feature in enumerate(features):
            ids[number] = writer.add(made_up_item(number, feature))
        writer.commit()
        writer.remove([ids[7]])
        writer.commit(is_complete=True)
    opened = Index.open(directory)
    return opened


def brute_force(queries: np.ndarray, features: np.ndarray, metric: Metric) -> np.ndarray:
    """(Q, D) and (n, D) -> (Q, n), straight from the definition."""
    queries, features = queries.astype(np.float64), features.astype(np.float64)
    if metric == "euclidean":
        return np.stack([np.linalg.norm(features - query, axis=1) for query in queries])
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(features, axis=1)
    return np.asarray(
        1 - np.divide(queries @ features.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_queries", [1, 3, 40])
@pytest.mark.parametrize("k", [1, 5, NUM_ITEMS + 10])
@pytest.mark.parametrize("label", [None, "odd"])
@pytest.mark.parametrize("block_rows", [2048, 16])
def test_search_equals_brute_force(
    index: Index,
    features: np.ndarray,
    metric: Metric,
    num_queries: int,
    k: int,
    label: str | None,
    block_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.search.exact.BLOCK_ROWS", block_rows)
    queries = features[:num_queries] + np.float32(0.1)
    numbers = [
        number for number in range(NUM_ITEMS) if number != 7 and (label is None or number % 2)
    ]
    distances = brute_force(queries, features[numbers], metric)
    for found, row in zip(
        Searcher(index).search(queries, k, metric=metric, label=label), distances, strict=True
    ):
        best = np.argsort(row)[:k]
        assert [match.item.path for match in found] == [f"{numbers[place]}.png" for place in best]
        np.testing.assert_allclose(
            [match.distance for match in found], row[best], rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_queries", [1, 40])
def test_an_item_is_its_own_nearest_match_at_distance_zero(
    index: Index, features: np.ndarray, metric: Metric, num_queries: int
) -> None:
    found = Searcher(index).search(features[11 : 11 + num_queries], 2, metric=metric)[0]
    assert (found[0].item.path, found[0].distance) == ("11.png", 0.0)
    assert found[1].distance > 0


def test_a_feature_of_zeros_is_at_cosine_distance_one_from_everything(
    features: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    zeros = np.zeros_like(features[:1])
    with IndexWriter.open(tmp_path / "index", tiny_model) as writer:
        for number, feature in enumerate([*features[:5], *zeros]):
            writer.add(made_up_item(number, feature))
        writer.commit()
    index = Index.open(tmp_path / "index")
    assert [match.distance for match in Searcher(index).search(zeros, 6, metric="cosine")[0]] == [
        1.0
    ] * 6
    found = Searcher(index).search(features[:1], 6, metric="cosine")[0]
    assert {match.item.path: match.distance for match in found}["5.png"] == 1.0


def test_searches_from_several_threads_get_their_own_answers(
    index: Index, features: np.ndarray
) -> None:
    searcher = Searcher(index)
    numbers = [number for number in range(NUM_ITEMS) if number != 7]
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(
            lambda number: searcher.search(features[number : number + 1], 1)[0][0].item.path,
            numbers,
        )
        assert list(found) == [f"{number}.png" for number in numbers]


def test_a_removed_item_is_never_found(index: Index, features: np.ndarray) -> None:
    found = Searcher(index).search(features[7:8], NUM_ITEMS)[0]
    assert len(found) == NUM_ITEMS - 1
    assert "7.png" not in {match.item.path for match in found}


def test_a_label_filter_gives_k_of_that_label_and_no_other(
    index: Index, features: np.ndarray
) -> None:
    found = Searcher(index).search(features[:1], 100, label="odd")[0]
    assert len(found) == NUM_ITEMS // 2 - 1
    assert {match.item.label for match in found} == {"odd"}
    nearest = [
        match for match in Searcher(index).search(features[:1], 100)[0] if match.item.label == "odd"
    ]
    assert [match.item.id for match in found] == [match.item.id for match in nearest]


def test_an_unknown_label_and_an_empty_index_have_no_matches(
    index: Index, features: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    assert Searcher(index).search(features[:2], 3, label="purple") == [[], []]
    with IndexWriter.open(tmp_path / "empty", tiny_model) as writer:
        writer.commit(is_complete=True)
    assert Searcher(Index.open(tmp_path / "empty")).search(features[:2], 3) == [[], []]


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_the_gpu_finds_the_cpus_neighbours(
    index: Index, features: np.ndarray, metric: Metric
) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("needs a GPU")
    queries = features[:20] + np.float32(0.1)
    searcher = Searcher(index, device="gpu")
    on_cpu = Searcher(index).search(queries, 5, metric=metric)
    with ThreadPoolExecutor(4) as threads:
        on_gpu = list(
            threads.map(
                lambda place: searcher.search(queries[place : place + 1], 5, metric=metric)[0],
                range(20),
            )
        )
    assert [[match.item.id for match in found] for found in on_gpu] == [
        [match.item.id for match in found] for found in on_cpu
    ]


def test_a_gpu_that_is_not_there_is_a_clear_error(index: Index) -> None:
    if faiss.get_num_gpus():
        pytest.skip("there is a GPU here")
    assert Searcher(index, device="auto").device == "cpu"
    with pytest.raises(UserError, match="FAISS finds none here; pass --device cpu"):
        Searcher(index, device="gpu")
