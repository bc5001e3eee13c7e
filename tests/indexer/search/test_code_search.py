"""Search by Hamming distance, held against counting bits one by one."""

from pathlib import Path

import numpy as np
import pytest

from indexer.search.searcher import Match, Searcher
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from tests.conftest import Run, coloured
from tests.indexer.conftest import Succeed
from tests.indexer.items import made_up_item

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
def encoded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Index:
    """300 made-up items with codes of 16 bits, of which three have been removed."""
    directory = tmp_path_factory.mktemp("encoded") / "index"
    with IndexWriter.open(directory, tiny_model) as writer:
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
    """Ids and numbers of different bits of the nearest, ties by id."""
    rows = index.rows if label is None else index.rows_of_label(label)
    bits = ENCODER.weights @ query > 0
    others = FEATURES[rows] @ ENCODER.weights.T > 0
    distances = (bits != others).sum(axis=1)
    order = np.argsort(distances, kind="stable")[:k]
    return [(int(rows[place]) + 1, float(distances[place])) for place in order]


def told(matches: list[Match]) -> list[tuple[int, float]]:
    return [(match.item.id, match.distance) for match in matches]


@pytest.mark.parametrize("least", [50_000, 10])
@pytest.mark.parametrize("k", [1, 7, 400])
def test_codes_alone_find_what_counting_bits_finds_ties_by_row(
    encoded: Index, k: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.code_search.MIN_CODES", least)  # one part, and several
    monkeypatch.setattr("indexer.search.searcher.NUM_CORES", 3)
    answers = Searcher(encoded).search(QUERIES, k, metric="hamming", rerank=0)
    assert [told(matches) for matches in answers] == [
        brute_force(encoded, query, k) for query in QUERIES
    ]


def test_a_label_is_searched_exactly(encoded: Index) -> None:
    (label, count), *_ = encoded.labels().items()
    (matches, *_) = Searcher(encoded).search(
        QUERIES, count + 5, metric="hamming", rerank=0, label=label
    )
    assert told(matches) == brute_force(encoded, QUERIES[0], count, label)
    assert len(matches) == count


def test_reranking_everything_is_searching_by_euclidean_distance(encoded: Index) -> None:
    searcher = Searcher(encoded)
    by_code = searcher.search(QUERIES, 10, metric="hamming", rerank=NUM_ITEMS)
    assert [told(matches) for matches in by_code] == [
        told(matches) for matches in searcher.search(QUERIES, 10)
    ]


@pytest.mark.parametrize("least", [256, 5])
def test_reranking_reads_the_nearest_by_code_only(
    encoded: Index, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.code_search.MIN_ROWS", least)  # one part, and several
    monkeypatch.setattr("indexer.search.searcher.NUM_CORES", 3)
    (matches,) = Searcher(encoded).search(QUERIES[:1], 5, metric="hamming", rerank=20)
    nearest = dict(brute_force(encoded, QUERIES[0], 20))
    distances = {id: float(np.linalg.norm(FEATURES[id - 1] - QUERIES[0])) for id in nearest}
    assert [id for id, _ in told(matches)] == sorted(distances, key=distances.__getitem__)[:5]
    assert [match.distance for match in matches] == pytest.approx(
        sorted(distances.values())[:5], rel=1e-5
    )


def looked_up(
    index: Index, query: np.ndarray, k: int, flips: int, num_address_bits: int = 8
) -> list[tuple[int, float]]:
    """What lies in the buckets within so many flips, counted one by one; ids and numbers of different bits, ties by id."""
    bits = ENCODER.weights @ query > 0
    others = FEATURES[index.rows] @ ENCODER.weights.T > 0
    is_near = (bits != others)[:, :num_address_bits].sum(axis=1) <= flips
    distances = np.where(is_near, (bits != others).sum(axis=1), np.iinfo(np.int64).max)
    order = np.argsort(distances, kind="stable")[: min(k, is_near.sum())]
    return [(int(index.rows[place]) + 1, float(distances[place])) for place in order]


@pytest.mark.parametrize("flips", [1, 2])
def test_a_lookup_finds_what_has_about_the_same_address(encoded: Index, flips: int) -> None:
    answers = Searcher(encoded).search(QUERIES, 2, metric="hamming", rerank=0, flips=flips)
    for matches, query in zip(answers, QUERIES, strict=True):
        wanted = looked_up(encoded, query, 300, flips)
        assert len(wanted) >= 2
        # Which of those that tie at the end come in is the buckets' own order.
        assert [distance for _, distance in told(matches)] == [
            distance for _, distance in wanted[:2]
        ]
        assert set(told(matches)) <= set(wanted)


def test_a_lookup_that_finds_too_few_scans(encoded: Index) -> None:
    answers = Searcher(encoded).search(QUERIES, 250, metric="hamming", rerank=0, flips=0)
    assert [told(matches) for matches in answers] == [
        brute_force(encoded, query, 250) for query in QUERIES
    ]


def test_a_lookup_may_be_reranked_and_keeps_to_a_label(encoded: Index) -> None:
    searcher = Searcher(encoded)
    (matches,) = searcher.search(QUERIES[:1], 3, metric="hamming", rerank=50, flips=2)
    assert [match.distance for match in matches] == sorted(match.distance for match in matches)
    assert matches[0].distance > 16
    (label, _), *_ = encoded.labels().items()
    (matches,) = searcher.search(QUERIES[:1], 5, metric="hamming", rerank=0, flips=0, label=label)
    assert told(matches) == brute_force(encoded, QUERIES[0], 5, label)


def test_an_index_without_codes_says_how_to_make_them(tiny_index: Path) -> None:
    with pytest.raises(
        IndexDirectoryError, match="has no codes; make them: lookalike index encode"
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


def test_an_index_is_encoded_searched_and_judged_by_command(
    succeed: Succeed, run: Run, many_colours: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index, query = tmp_path / "index", tmp_path / "query.png"
    coloured("green", 900).save(query)
    succeed(
        "index", "build", many_colours, "--model", tiny_model, "--out", index, "--device", "cpu"
    )
    status, _, error = run("search", index, query, "--metric", "hamming")
    assert (status, error.count("\n")) == (1, 1)
    assert "lookalike index encode" in error
    printed, _ = succeed("index", "encode", index, "--bits", "32", "--device", "cpu")
    assert printed == f"{index} has codes of 32 bits, 4 bytes an image, learnt from 66 items\n"
    assert "32 bits" in succeed("index", "stats", index)[0]
    assert all(
        " green " in line
        for line in succeed("search", index, query, "-k", "3", "--metric", "hamming")[
            0
        ].splitlines()[1:]
    )
    by_code, _ = succeed("search", index, query, "-k", "3", "--metric", "hamming", "--rerank", "0")
    assert all(line.split()[0].isdigit() for line in by_code.splitlines()[1:])
    judged, _ = succeed("index", "quality", index, "-k", "5", "--device", "cpu")
    assert [line.split("  ")[0] for line in (line.strip() for line in judged.splitlines()[2:])] == [
        "euclidean",
        "cosine",
        "hamming",
        "hamming, 2,000 reranked",
    ]
    coloured("green", 901).save(tmp_path / "another.png")
    succeed("index", "add", index, tmp_path / "another.png")
    found, _ = succeed(
        "search",
        index,
        tmp_path / "another.png",
        "-k",
        "67",
        "--metric",
        "hamming",
        "--rerank",
        "0",
    )
    assert ["0", "-", "another.png"] in [line.split() for line in found.splitlines()]


@pytest.mark.parametrize("option", ["--rerank", "--flips"])
def test_what_is_for_codes_is_refused_without_them(
    run: Run, tiny_index: Path, tmp_path: Path, option: str
) -> None:
    coloured("green", 900).save(tmp_path / "query.png")
    status, _, error = run("search", tiny_index, tmp_path / "query.png", option, "3")
    assert status == 1
    assert f"{option} is for codes only" in error
