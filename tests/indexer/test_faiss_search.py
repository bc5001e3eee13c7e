from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.faiss_search import Searcher
from indexer.index import Index
from indexer.writer import IndexWriter, NewItem

NUM_ITEMS = 60


def made_up_item(number: int, feature: np.ndarray) -> NewItem:
    return NewItem(
        path=f"{number}.png",
        label="even" if number % 2 == 0 else "odd",
        sha256=f"{number:064}",
        width=8,
        height=8,
        thumbnail=b"jpeg",
        feature=feature,
    )


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).gamma(1.0, 2.0, (NUM_ITEMS, 4096)).astype(np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, features: np.ndarray) -> Iterator[Index]:
    """Sixty made-up items, of which number 7 has been removed again."""
    directory = tmp_path_factory.mktemp("made-up") / "index"
    with IndexWriter.open(directory, tiny_model) as writer:
        for number, feature in enumerate(features):
            writer.add(made_up_item(number, feature))
        writer.commit()
        writer.remove([writer.known()["7.png"].id])
        writer.commit(is_complete=True)
    opened = Index.open(directory)
    yield opened
    opened.close()


@pytest.mark.parametrize("num_queries", [1, 3, 40])
def test_search_equals_brute_force(index: Index, features: np.ndarray, num_queries: int) -> None:
    queries = features[:num_queries] + np.float32(0.1)
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - features[None].astype(np.float64), axis=2)
    distances[:, 7] = np.inf
    for found, row in zip(Searcher(index).search(queries, 5), distances, strict=True):
        best = np.argsort(row)[:5]
        assert [match.item.path for match in found] == [f"{number}.png" for number in best]
        np.testing.assert_allclose([match.distance for match in found], row[best], rtol=1e-3)


def test_an_item_is_its_own_nearest_match_at_distance_zero(index: Index, features: np.ndarray) -> None:
    found = Searcher(index).search(features[11:12], 2)[0]
    assert (found[0].item.path, found[0].distance) == ("11.png", 0.0)
    assert found[1].distance > 0


def test_a_removed_item_is_never_found(index: Index, features: np.ndarray) -> None:
    found = Searcher(index).search(features[7:8], NUM_ITEMS)[0]
    assert len(found) == NUM_ITEMS - 1
    assert "7.png" not in {match.item.path for match in found}


def test_a_label_filter_gives_k_of_that_label_and_no_other(index: Index, features: np.ndarray) -> None:
    found = Searcher(index).search(features[:1], 100, label="odd")[0]
    assert len(found) == NUM_ITEMS // 2 - 1
    assert {match.item.label for match in found} == {"odd"}
    nearest = [match for match in Searcher(index).search(features[:1], 100)[0] if match.item.label == "odd"]
    assert [match.item.id for match in found] == [match.item.id for match in nearest]


def test_an_unknown_label_and_an_empty_index_have_no_matches(index: Index, features: np.ndarray, tiny_model: Path, tmp_path: Path) -> None:
    assert Searcher(index).search(features[:2], 3, label="purple") == [[], []]
    with IndexWriter.open(tmp_path / "empty", tiny_model) as writer:
        writer.commit(is_complete=True)
    assert Searcher(Index.open(tmp_path / "empty")).search(features[:2], 3) == [[], []]


@pytest.mark.gpu
def test_the_gpu_finds_the_cpus_neighbours(index: Index, features: np.ndarray) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    queries = features[:20] + np.float32(0.1)
    on_gpu = Searcher(index, device="gpu").search(queries, 5)
    on_cpu = Searcher(index).search(queries, 5)
    assert [[match.item.id for match in found] for found in on_gpu] == [[match.item.id for match in found] for found in on_cpu]
