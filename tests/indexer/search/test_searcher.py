"""Searches of an index: exact, by a structure, from several threads, and on a GPU."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from indexer.array_types import Rows
from indexer.metrics import METRICS, Metric
from indexer.search import exact, searcher
from indexer.search.exact import true_distances
from indexer.search.faiss_structure import load_structure
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.storage.writer import IndexWriter
from tests.indexer.definitions import distances_by_definition
from tests.indexer.items import clusters, made_up_item, make_index, stand_in_model
from tests.indexer.search import structures
from tests.indexer.search.structures import (
    add_items,
    clustered_features,
    ids_of,
    remove_items,
    share_found,
)
from training.errors import UserError

NUM_ITEMS = 60


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).gamma(1.0, 2.0, (NUM_ITEMS, 4096)).astype(np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, features: np.ndarray) -> Index:
    """60 made-up items without number 7, which was removed."""
    folder = tmp_path_factory.mktemp("made-up")
    directory = folder / "index"
    with IndexWriter.open(directory, stand_in_model(folder / "model")) as writer:
        ids = [writer.add(made_up_item(number, feature)) for number, feature in enumerate(features)]
        writer.commit()
        writer.remove([ids[7]])
        writer.commit(is_complete=True)
    return Index.open(directory)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_queries", [1, 3, 40])
@pytest.mark.parametrize("k", [1, 5, NUM_ITEMS + 10])
@pytest.mark.parametrize("label", [None, "odd"])
@pytest.mark.parametrize("block_rows", [2048, 16])
def test_the_nearest_items_are_those_of_the_definition(
    index: Index,
    features: np.ndarray,
    metric: Metric,
    num_queries: int,
    k: int,
    label: str | None,
    block_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.search.exact.SCAN_BLOCK_ROWS", block_rows)
    queries = features[:num_queries] + np.float32(0.1)
    numbers = [
        number for number in range(NUM_ITEMS) if number != 7 and (label is None or number % 2)
    ]
    distances = distances_by_definition(queries, features[numbers], metric)
    for found, row in zip(
        Searcher(index).search(queries, k, metric=metric, label=label), distances, strict=True
    ):
        best = np.argsort(row)[:k]
        assert [match.item.path for match in found] == [
            f"{numbers[position]}.png" for position in best
        ]
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
    features: np.ndarray, tmp_path: Path
) -> None:
    zeros = np.zeros_like(features[:1])
    with IndexWriter.open(tmp_path / "index", stand_in_model(tmp_path / "model")) as writer:
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
    assert ids_of(found) == ids_of(nearest)


@pytest.mark.parametrize("metric", METRICS)
def test_several_labels_mean_the_items_with_any_of_them(tmp_path: Path, metric: Metric) -> None:
    features, _ = clusters(num_labels=3)
    labels = ["a", "b", None, "c"] * 15
    model = stand_in_model(tmp_path / "model")
    searcher = Searcher(Index.open(make_index(tmp_path / "index", model, features, labels)))
    (everything,) = searcher.search(features[:1], NUM_ITEMS, metric=metric)
    for wanted in (["a"], ["a", "c"], ["c", "unknown", "a", "c"], ["unknown"], []):
        (found,) = searcher.search(features[:1], NUM_ITEMS, metric=metric, label=wanted)
        assert ids_of(found) == ids_of([match for match in everything if match.label in wanted])


def test_an_unknown_label_and_an_empty_index_have_no_matches(
    index: Index, features: np.ndarray, tmp_path: Path
) -> None:
    assert Searcher(index).search(features[:2], 3, label="purple") == [[], []]
    with IndexWriter.open(tmp_path / "empty", stand_in_model(tmp_path / "model")) as writer:
        writer.commit(is_complete=True)
    assert Searcher(Index.open(tmp_path / "empty")).search(features[:2], 3) == [[], []]


@pytest.mark.parametrize("metric", METRICS)
def test_distances_by_a_structure_are_the_true_ones(built: Path, metric: Metric) -> None:
    index = Index.open(built)
    queries = clustered_features(20, seed=3)
    for query, matches in zip(
        queries, Searcher(index).search(queries, 10, metric=metric), strict=True
    ):
        distances = true_distances(index, query, index.rows_of_ids(ids_of(matches)), metric)
        np.testing.assert_allclose(
            [match.distance for match in matches], distances, rtol=1e-9, atol=1e-12
        )
        assert np.all(np.diff(distances) >= 0)


def test_a_structure_finds_items_added_later_and_no_removed_ones(
    built: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(built, tmp_path / "index"))
    files = {artefact.file for artefact in read_manifest(directory).artefacts.values()}
    new = clustered_features(5, seed=1)
    new_ids = add_items(directory, new, structures.NUM_ITEMS)
    nearest = ids_of(Searcher(Index.open(directory)).search(new[:1], 10)[0])
    remove_items(directory, [nearest[1], nearest[3], new_ids[4]])
    searcher = Searcher(Index.open(directory))
    assert {artefact.file for artefact in searcher.index.manifest.artefacts.values()} == files
    for metric in METRICS:
        found = searcher.search(new, 20, metric=metric)
        assert [ids_of(matches)[0] for matches in found[:4]] == new_ids[:4]
        assert not {nearest[1], nearest[3], new_ids[4]} & {
            id for matches in found for id in ids_of(matches)
        }
        assert share_found(searcher.index, new, metric) >= 0.9


def test_a_search_of_a_label_or_of_everything_is_exact(built: Path) -> None:
    searcher = Searcher(Index.open(built))
    query = clustered_features(1, seed=4)
    found = searcher.search(query, structures.NUM_ITEMS, label="odd")[0]
    assert len(found) == structures.NUM_ITEMS // 2 - 1
    assert {match.item.label for match in found} == {"odd"}
    assert ids_of(searcher.search(query, 2 * structures.NUM_ITEMS)[0]) == ids_of(
        searcher.search(query, 2 * structures.NUM_ITEMS, exact=True)[0]
    )
    assert len(searcher.search(query, structures.NUM_ITEMS - 1)[0]) == structures.NUM_ITEMS - 1


def test_a_query_with_too_few_candidates_is_scanned_exactly(own_ivf: Path) -> None:
    index = Index.open(own_ivf)
    searcher = Searcher(index)
    structure = load_structure(index, "euclidean")
    assert structure is not None
    structure.breadth = 1
    query = clustered_features(1, seed=4)
    assert -1 in structure.candidates(query, 400)[0]
    searcher._structures["euclidean"] = structure
    assert ids_of(searcher.search(query, 150)[0]) == ids_of(
        searcher.search(query, 150, exact=True)[0]
    )


def test_searches_at_the_same_time_share_the_cores(
    index: Index, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS's number of threads is set per search, so OMP_NUM_THREADS makes no difference here."""
    monkeypatch.setattr("indexer.search.searcher.NUM_CORES", 6)
    has_begun, may_end = threading.Event(), threading.Event()
    num_threads: list[int] = []
    scan_features = exact.scan_features

    def scan_and_wait(*arguments: Any) -> list[Rows]:
        num_threads.append(faiss.omp_get_max_threads())
        has_begun.set()
        assert may_end.wait(timeout=60)
        return scan_features(*arguments)

    monkeypatch.setattr(exact, "scan_features", scan_and_wait)
    searcher = Searcher(index)
    with ThreadPoolExecutor(3) as pool:
        searches = []
        for number in range(3):
            has_begun.clear()
            searches.append(pool.submit(searcher.search, features[number : number + 1], 1))
            assert has_begun.wait(timeout=60)
        may_end.set()
        assert [search.result()[0][0].path for search in searches] == ["0.png", "1.png", "2.png"]
        pool.submit(searcher.search, features[:1], 1).result()
    assert num_threads == [6, 3, 2, 6]


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_the_gpu_and_the_cpu_find_the_same_neighbours(
    index: Index, features: np.ndarray, metric: Metric
) -> None:
    queries = features[:20] + np.float32(0.1)
    searcher = Searcher(index, device="gpu")
    on_cpu = Searcher(index).search(queries, 5, metric=metric)
    with ThreadPoolExecutor(4) as threads:
        on_gpu = list(
            threads.map(
                lambda position: searcher.search(
                    queries[position : position + 1], 5, metric=metric
                )[0],
                range(20),
            )
        )
    assert list(map(ids_of, on_gpu)) == list(map(ids_of, on_cpu))


def test_a_missing_gpu_is_an_error_that_says_what_to_pass(index: Index) -> None:
    if faiss.get_num_gpus():
        pytest.skip("there is a GPU here")
    assert Searcher(index, device="auto").device == "cpu"
    with pytest.raises(UserError, match="FAISS finds none here; pass --device cpu"):
        Searcher(index, device="gpu")


def test_numpys_products_keep_to_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[dict[str, Any]] = []
    monkeypatch.setattr(searcher, "threadpool_limits", lambda **limit: limits.append(limit))
    for num_allowed, expected in ((1, [{"limits": 1, "user_api": "blas"}]), (64, [])):
        monkeypatch.setattr(searcher, "num_cores", lambda num=num_allowed: num)
        monkeypatch.setattr("os.cpu_count", lambda: 64)
        searcher._limit_blas.cache_clear()
        limits.clear()
        searcher._limit_blas()
        assert limits == expected
    searcher._limit_blas.cache_clear()


@pytest.mark.parametrize("metric", METRICS)
def test_a_trial_scans_few_rows_and_notices_what_is_broken(
    index: Index, features: np.ndarray, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[int] = []

    def note(index: Index, rows: Rows, *arguments: Any) -> None:
        scanned.append(len(rows))

    tried = Searcher(index)
    with monkeypatch.context() as patch:
        patch.setattr(searcher, "NUM_TRIED", 7)
        patch.setattr(searcher, "find_nearest", note)
        tried.try_out(features[:1], metric)
    assert scanned == [7]
    with pytest.raises(IndexDirectoryError, match="has no codes"):
        tried.try_out(features[:1], "hamming")
