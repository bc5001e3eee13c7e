"""Search by Hamming distance, compared with counting bits one by one."""

import itertools
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.search.code_search import CoreThreads
from indexer.search.searcher import Match, Searcher
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from tests.conftest import Run, coloured
from tests.indexer.conftest import Succeed
from tests.indexer.items import made_up_item, stand_in_model
from tests.indexer.search.almost_equal import almost_equal_features

NUM_ITEMS, NUM_BITS = 300, 16
REMOVED = (5, 6, 250)
NOISE = np.random.default_rng(3)
FEATURES = np.maximum(NOISE.standard_normal((NUM_ITEMS, 4096), np.float32), 0)
QUERIES = np.maximum(NOISE.standard_normal((4, 4096), np.float32), 0)
ENCODER = Encoder(
    CodeFacts(num_bits=NUM_BITS, num_fitted=NUM_ITEMS, seed=0, commit=1, loss=(1.0,)),
    NOISE.standard_normal((NUM_BITS, 4096), np.float32),
    np.zeros(NUM_BITS, np.float32),
)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """300 made-up items with codes of 16 bits, without three that were removed."""
    folder = tmp_path_factory.mktemp("encoded")
    directory = folder / "index"
    with IndexWriter.open(directory, stand_in_model(folder / "model")) as writer:
        for number, feature in enumerate(FEATURES):
            writer.add(made_up_item(number, feature))
        writer.write_codes(ENCODER)
        writer.commit()
    with IndexWriter.open(directory) as writer:
        writer.remove([row + 1 for row in REMOVED])  # ids count from 1
        writer.commit()
    return Index.open(directory)


def brute_force(
    index: Index, query: np.ndarray, k: int, label: str | None = None
) -> list[tuple[int, float]]:
    """The ids of the nearest and the number of bits that differ, ties by id."""
    rows = index.rows if label is None else index.rows_of_label(label)
    bits = ENCODER.weights @ query > 0
    others = FEATURES[rows] @ ENCODER.weights.T > 0
    distances = (bits != others).sum(axis=1)
    order = np.argsort(distances, kind="stable")[:k]
    return [(int(rows[position]) + 1, float(distances[position])) for position in order]


def ids_and_distances(matches: list[Match]) -> list[tuple[int, float]]:
    return [(match.item.id, match.distance) for match in matches]


@pytest.mark.parametrize("min_per_thread", [50_000, 10])
@pytest.mark.parametrize("k", [1, 7, 400])
def test_a_search_by_codes_alone_gives_the_fewest_different_bits_ties_by_row(
    encoded: Index, k: int, min_per_thread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One part, and several.
    monkeypatch.setattr("indexer.search.code_search.MIN_CODES_PER_THREAD", min_per_thread)
    monkeypatch.setattr("indexer.search.searcher.NUM_CORES", 3)
    answers = Searcher(encoded).search(QUERIES, k, metric="hamming", rerank=0)
    assert [ids_and_distances(matches) for matches in answers] == [
        brute_force(encoded, query, k) for query in QUERIES
    ]


def test_a_label_is_searched_exactly(encoded: Index) -> None:
    (label, count), *_ = encoded.labels().items()
    (matches, *_) = Searcher(encoded).search(
        QUERIES, count + 5, metric="hamming", rerank=0, label=label
    )
    assert ids_and_distances(matches) == brute_force(encoded, QUERIES[0], count, label)
    assert len(matches) == count


def test_reranking_everything_is_searching_by_euclidean_distance(encoded: Index) -> None:
    searcher = Searcher(encoded)
    by_code = searcher.search(QUERIES, 10, metric="hamming", rerank=NUM_ITEMS)
    assert [ids_and_distances(matches) for matches in by_code] == [
        ids_and_distances(matches) for matches in searcher.search(QUERIES, 10)
    ]


@pytest.mark.parametrize("min_per_thread", [256, 5])
def test_only_the_nearest_by_code_are_reranked(
    encoded: Index, min_per_thread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One part, and several.
    monkeypatch.setattr("indexer.search.code_search.MIN_ROWS_PER_THREAD", min_per_thread)
    monkeypatch.setattr("indexer.search.searcher.NUM_CORES", 3)
    (matches,) = Searcher(encoded).search(QUERIES[:1], 5, metric="hamming", rerank=20)
    nearest = dict(brute_force(encoded, QUERIES[0], 20))
    distances = {id: float(np.linalg.norm(FEATURES[id - 1] - QUERIES[0])) for id in nearest}
    assert [id for id, _ in ids_and_distances(matches)] == sorted(
        distances, key=distances.__getitem__
    )[:5]
    assert [match.distance for match in matches] == pytest.approx(
        sorted(distances.values())[:5], rel=1e-5
    )


@pytest.mark.parametrize("nearest", [0, 16])
def test_reranking_finds_the_nearest_even_if_float32_cannot_tell_it_from_others(
    tmp_path: Path, nearest: int
) -> None:
    """The spare rows make sure of it. Without them one of the two positions would win."""
    with IndexWriter.open(tmp_path / "index", stand_in_model(tmp_path / "model")) as writer:
        for number, feature in enumerate(almost_equal_features(17, nearest)):
            writer.add(made_up_item(number, feature))
        writer.write_codes(ENCODER)
        writer.commit()
    query = np.zeros((1, 4096), np.float32)
    query[0, 0] = 0.5
    searcher = Searcher(Index.open(tmp_path / "index"))
    ((match,),) = searcher.search(query, 1, metric="hamming", rerank=17)
    assert match.path == f"{nearest}.png"


def looked_up(
    index: Index, query: np.ndarray, k: int, flips: int, num_address_bits: int = 8
) -> list[tuple[int, float]]:
    """Ids in the buckets within the flips, and numbers of different bits, ties by id."""
    bits = ENCODER.weights @ query > 0
    others = FEATURES[index.rows] @ ENCODER.weights.T > 0
    is_near = (bits != others)[:, :num_address_bits].sum(axis=1) <= flips
    distances = np.where(is_near, (bits != others).sum(axis=1), np.iinfo(np.int64).max)
    order = np.argsort(distances, kind="stable")[: min(k, is_near.sum())]
    return [(int(index.rows[position]) + 1, float(distances[position])) for position in order]


@pytest.mark.parametrize("flips", [1, 2])
def test_a_lookup_finds_the_items_with_a_similar_address(encoded: Index, flips: int) -> None:
    answers = Searcher(encoded).search(QUERIES, 2, metric="hamming", rerank=0, flips=flips)
    for matches, query in zip(answers, QUERIES, strict=True):
        wanted = looked_up(encoded, query, 300, flips)
        assert len(wanted) >= 2
        # Which of several ties come in at the end depends on the order inside the buckets.
        assert [distance for _, distance in ids_and_distances(matches)] == [
            distance for _, distance in wanted[:2]
        ]
        assert set(ids_and_distances(matches)) <= set(wanted)


def test_a_lookup_that_finds_too_few_scans_all_codes(encoded: Index) -> None:
    answers = Searcher(encoded).search(QUERIES, 250, metric="hamming", rerank=0, flips=0)
    assert [ids_and_distances(matches) for matches in answers] == [
        brute_force(encoded, query, 250) for query in QUERIES
    ]


def test_a_lookup_can_be_reranked_and_a_label_is_scanned(encoded: Index) -> None:
    searcher = Searcher(encoded)
    (matches,) = searcher.search(QUERIES[:1], 3, metric="hamming", rerank=50, flips=2)
    assert [match.distance for match in matches] == sorted(match.distance for match in matches)
    assert matches[0].distance > 16
    (label, _), *_ = encoded.labels().items()
    (matches,) = searcher.search(QUERIES[:1], 5, metric="hamming", rerank=0, flips=0, label=label)
    assert ids_and_distances(matches) == brute_force(encoded, QUERIES[0], 5, label)


def test_the_error_without_codes_says_how_to_make_them(tiny_index: Path) -> None:
    with pytest.raises(
        IndexDirectoryError, match="has no codes; make them with: lookalike index encode"
    ):
        Searcher(Index.open(tiny_index)).search(QUERIES[:1], 3, metric="hamming")


@pytest.fixture(scope="module")
def many_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    for label in ("red", "green", "blue"):
        (folder / label).mkdir()
        for seed in range(22):
            coloured(label, seed).save(folder / label / f"{seed}.png")
    return folder


def test_commands_encode_search_and_judge_an_index(
    succeed: Succeed, run: Run, many_colours: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index, query, another = (tmp_path / name for name in ("index", "query.png", "another.png"))
    coloured("green", 900).save(query)
    coloured("green", 901).save(another)
    by_hamming = ("--metric", "hamming")
    succeed(
        "index", "build", many_colours, "--model", tiny_model, "--out", index, "--device", "cpu"
    )
    status, _, error = run("search", index, query, *by_hamming)
    assert (status, error.count("\n")) == (1, 1)
    assert "lookalike index encode" in error
    printed, _ = succeed("index", "encode", index, "--bits", "32", "--device", "cpu")
    assert printed == f"{index} has codes of 32 bits, 4 bytes per image, learned from 66 items\n"
    assert "32 bits" in succeed("index", "stats", index)[0]
    printed, _ = succeed("search", index, query, "-k", "3", *by_hamming)
    assert all(" green " in line for line in printed.splitlines()[1:])
    printed, _ = succeed("search", index, query, "-k", "3", *by_hamming, "--rerank", "0")
    assert all(line.split()[0].isdigit() for line in printed.splitlines()[1:])
    printed, _ = succeed("index", "quality", index, "-k", "5", "--device", "cpu")
    *table, sentence = printed.splitlines()[2:]
    metrics = [line.strip().split("  ")[0] for line in table]
    assert sentence.startswith("The distances rank about equally well on this collection")
    assert metrics == ["euclidean", "cosine", "hamming", "hamming, 2,000 reranked"]
    succeed("index", "add", index, another)
    printed, _ = succeed("search", index, another, "-k", "67", *by_hamming, "--rerank", "0")
    assert ["0", "-", "another.png"] in [line.split() for line in printed.splitlines()]


@pytest.mark.parametrize("option", ["--rerank", "--flips"])
def test_options_for_codes_are_refused_for_other_metrics(
    run: Run, tiny_index: Path, tmp_path: Path, option: str
) -> None:
    coloured("green", 900).save(tmp_path / "query.png")
    status, _, error = run("search", tiny_index, tmp_path / "query.png", option, "3")
    assert status == 1
    assert f"{option.strip('-')} works with the metric hamming only" in error


@pytest.mark.parametrize(
    ("count", "min_per_thread", "num_parts"), [(9, 10, 1), (25, 10, 2), (90, 10, 3), (0, 10, 1)]
)
def test_work_is_split_into_one_part_per_thread_or_fewer(
    count: int, min_per_thread: int, num_parts: int
) -> None:
    parts = CoreThreads(3).map(lambda start, end: (start, end), count, min_per_thread)
    assert len(parts) == num_parts
    assert (parts[0][0], parts[-1][1]) == (0, count)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(parts))


def test_faiss_runs_single_threaded_inside_a_thread_per_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_threads_set = []
    monkeypatch.setattr(
        faiss,
        "omp_set_num_threads",
        lambda count: num_threads_set.append((threading.current_thread().name[:7], count)),
    )
    CoreThreads(1).map(lambda start, end: None, 1, 1)
    assert num_threads_set == [("hamming", 1)]
