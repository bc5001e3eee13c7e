"""The kinds of search: which is chosen, what it takes, and that it finds what it says."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.metrics import METRICS, Metric
from indexer.opening import open_for_queries
from indexer.search import update_structures as building
from indexer.search.exact import true_distances
from indexer.search.faiss_structure import load_structure
from indexer.search.kinds import (
    MAX_FLAT_ITEMS,
    Kind,
    KindChoice,
    choose,
    default_memory_bytes,
    estimate_bytes,
    format_size,
    parse_memory,
)
from indexer.search.searcher import Match, Searcher
from indexer.search.update_structures import recall_at_10, update_search
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.compact import compact
from indexer.updates.verify import mend, verify
from tests.indexer.items import made_up_item
from training.errors import UserError

BUILT: tuple[Kind, ...] = ("ivf", "ivf-fp16", "ivf-sq8", "hnsw-fp16", "hnsw-sq8")
NUM_ITEMS = 600
GB = 10**9


def made_up_features(count: int, seed: int = 0) -> np.ndarray:
    """(count, 4096) float32 such as fc7's: in clusters, never negative, half of the numbers zero."""
    centres = np.random.default_rng(99).normal(0, 2, (20, 4096))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, len(centres), count)] + random.normal(
        0, 1.5, (count, 4096)
    )
    return np.maximum(vectors, 0).astype(np.float32)


def add_items(directory: Path, features: Iterable[np.ndarray], first: int) -> list[int]:
    """Adds an item a feature, named by number from `first`, and does what an addition does then; their ids."""
    with IndexWriter.open(directory) as writer:
        ids = [
            writer.add(made_up_item(number, feature))
            for number, feature in enumerate(features, first)
        ]
        update_search(writer)
        writer.commit()
    return ids


def set_kind(directory: Path, kind: KindChoice | None, memory_bytes: int | None = None) -> None:
    with IndexWriter.open(directory) as writer:
        update_search(writer, kind=kind, memory_bytes=memory_bytes)
        writer.commit()


def remove_items(directory: Path, ids: Iterable[int]) -> None:
    with IndexWriter.open(directory) as writer:
        writer.remove(ids)
        writer.commit()


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Six hundred made-up items, of which number 7 has been removed, without any structure."""
    directory = tmp_path_factory.mktemp("made-up") / "index"
    with IndexWriter.open(directory, tiny_model) as writer:
        ids = [
            writer.add(made_up_item(number, feature))
            for number, feature in enumerate(made_up_features(NUM_ITEMS))
        ]
        writer.remove([ids[7]])
        writer.commit(is_complete=True)
    return directory


@pytest.fixture(scope="module", params=BUILT)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flat: Path
) -> Path:
    """The same items with structures of each kind."""
    directory = Path(shutil.copytree(flat, tmp_path_factory.mktemp(request.param) / "index"))
    set_kind(directory, request.param)
    return directory


@pytest.fixture
def own_flat(flat: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flat, tmp_path / "index"))


@pytest.fixture
def own_ivf(own_flat: Path) -> Path:
    set_kind(own_flat, "ivf-sq8")
    return own_flat


def ids_of(matches: Iterable[Match]) -> list[int]:
    return [match.item.id for match in matches]


def share_found(index: Index, queries: np.ndarray, metric: Metric) -> float:
    searcher = Searcher(index)
    found, exact = (
        searcher.search(queries, 10, metric=metric),
        searcher.search(queries, 10, metric=metric, exact=True),
    )
    return float(
        np.mean(
            [
                len({*ids_of(one)} & {*ids_of(other)}) / 10
                for one, other in zip(found, exact, strict=True)
            ]
        )
    )


@pytest.mark.parametrize("metric", METRICS)
def test_a_structure_has_the_recall_that_the_manifest_says(built: Path, metric: Metric) -> None:
    index = Index.open(built)
    facts = index.manifest.artefacts[metric].facts
    structure = load_structure(index, metric)
    assert structure is not None
    recall, num_queries = recall_at_10(index, structure)
    assert recall == pytest.approx(facts["recall_at_10"], abs=1e-3)
    assert recall >= building.RECALL_TARGET
    assert num_queries == facts["num_queries"] == 200
    assert share_found(index, made_up_features(50, seed=5), metric) >= 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_the_true_ones_whatever_the_kind(built: Path, metric: Metric) -> None:
    index = Index.open(built)
    queries = made_up_features(20, seed=3)
    for query, matches in zip(
        queries, Searcher(index).search(queries, 10, metric=metric), strict=True
    ):
        distances = true_distances(index, query, index.rows_of_ids(ids_of(matches)), metric)
        np.testing.assert_allclose(
            [match.distance for match in matches], distances, rtol=1e-9, atol=1e-12
        )
        assert np.all(np.diff(distances) >= 0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_structure_takes_the_memory_that_was_estimated(built: Path, metric: Metric) -> None:
    artefact = read_manifest(built).artefacts[metric]
    assert artefact.facts["memory_bytes"] == estimate_bytes(
        artefact.facts["kind"], NUM_ITEMS - 1
    ) // len(METRICS)
    assert artefact.num_bytes == pytest.approx(artefact.facts["memory_bytes"], rel=0.03)


def test_items_added_since_are_found_and_removed_ones_are_not(built: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(built, tmp_path / "index"))
    files = {artefact.file for artefact in read_manifest(directory).artefacts.values()}
    new = made_up_features(5, seed=1)
    new_ids = add_items(directory, new, NUM_ITEMS)
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


def test_k_of_a_label_and_k_of_everything_are_exact(built: Path) -> None:
    searcher = Searcher(Index.open(built))
    query = made_up_features(1, seed=4)
    found = searcher.search(query, NUM_ITEMS, label="odd")[0]
    assert len(found) == NUM_ITEMS // 2 - 1
    assert {match.item.label for match in found} == {"odd"}
    assert ids_of(searcher.search(query, 2 * NUM_ITEMS)[0]) == ids_of(
        searcher.search(query, 2 * NUM_ITEMS, exact=True)[0]
    )
    assert len(searcher.search(query, NUM_ITEMS - 1)[0]) == NUM_ITEMS - 1


def test_too_few_candidates_are_made_up_for_by_an_exact_scan(own_ivf: Path) -> None:
    index = Index.open(own_ivf)
    searcher = Searcher(index)
    structure = load_structure(index, "euclidean")
    assert structure is not None
    structure.breadth = 1
    query = made_up_features(1, seed=4)
    assert -1 in structure.candidates(query, 400)[0]
    searcher._structures["euclidean"] = structure
    assert ids_of(searcher.search(query, 150)[0]) == ids_of(
        searcher.search(query, 150, exact=True)[0]
    )


def test_a_structure_is_extended_once_many_items_have_been_added(
    own_ivf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.update_structures.MIN_TAIL", 100)
    add_items(own_ivf, made_up_features(100, seed=1), NUM_ITEMS)
    before = read_manifest(own_ivf).artefacts["cosine"]
    assert before.facts["num_covered"] == NUM_ITEMS - 1
    new_ids = add_items(own_ivf, made_up_features(100, seed=2), NUM_ITEMS + 100)
    index = Index.open(own_ivf)
    for metric in METRICS:
        facts = index.manifest.artefacts[metric].facts
        assert (facts["num_covered"], facts["num_first"], facts["last_id"]) == (
            NUM_ITEMS + 199,
            NUM_ITEMS - 1,
            new_ids[-1],
        )
        assert facts["recall_at_10"] >= building.RECALL_TARGET
        assert [
            ids_of(matches)[0]
            for matches in Searcher(index).search(made_up_features(100, seed=2), 1, metric=metric)
        ] == new_ids
    assert verify(own_ivf).is_clean


def test_a_structure_is_made_anew_once_it_has_outgrown_its_cells(
    own_ivf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.update_structures.MIN_TAIL", 100)
    monkeypatch.setattr("indexer.search.update_structures.MAX_GROWTH", 1.3)
    add_items(own_ivf, made_up_features(200, seed=1), NUM_ITEMS)
    facts = read_manifest(own_ivf).artefacts["euclidean"].facts
    assert (facts["num_covered"], facts["num_first"]) == (NUM_ITEMS + 199, NUM_ITEMS + 199)


def test_a_structure_is_made_anew_once_most_of_its_items_are_gone(own_ivf: Path) -> None:
    ids = Index.open(own_ivf).ids.tolist()
    remove_items(own_ivf, ids[:250])
    add_items(own_ivf, [], 0)
    assert read_manifest(own_ivf).artefacts["euclidean"].facts["num_covered"] == NUM_ITEMS - 1
    remove_items(own_ivf, ids[250:350])
    add_items(own_ivf, [], 0)
    assert read_manifest(own_ivf).artefacts["euclidean"].facts["num_covered"] == NUM_ITEMS - 351


def test_a_structure_without_items_is_dropped_and_made_again_with_the_next(own_ivf: Path) -> None:
    remove_items(own_ivf, Index.open(own_ivf).ids.tolist())
    assert Searcher(Index.open(own_ivf)).search(made_up_features(1), 3) == [[]]
    compact(own_ivf)
    assert read_manifest(own_ivf).kind == "flat"
    add_items(own_ivf, made_up_features(1), 0)
    assert read_manifest(own_ivf).kind == "ivf-sq8"
    assert len(Searcher(Index.open(own_ivf)).search(made_up_features(1), 3)[0]) == 1


def test_a_compaction_keeps_the_structure_and_its_answers(own_ivf: Path) -> None:
    queries = made_up_features(20, seed=3)
    remove_items(own_ivf, Index.open(own_ivf).ids[::4].tolist())
    before = Searcher(Index.open(own_ivf)).search(queries, 10)
    artefacts = read_manifest(own_ivf).artefacts
    assert compact(own_ivf).num_freed_bytes
    after = Index.open(own_ivf)
    assert after.manifest.artefacts == artefacts
    assert [ids_of(matches) for matches in Searcher(after).search(queries, 10)] == [
        ids_of(matches) for matches in before
    ]
    assert verify(own_ivf).is_clean


def test_the_kind_may_be_changed_by_hand_and_is_remembered(own_ivf: Path) -> None:
    compact(own_ivf, kind="ivf")
    assert read_manifest(own_ivf).kind == "ivf"
    compact(own_ivf, kind="flat")
    assert (read_manifest(own_ivf).kind, read_manifest(own_ivf).artefacts) == ("flat", {})
    add_items(own_ivf, made_up_features(3, seed=1), NUM_ITEMS)
    assert read_manifest(own_ivf).search == {"kind": "flat"}


def test_what_is_up_to_date_is_left_alone(own_ivf: Path) -> None:
    before = read_manifest(own_ivf)
    set_kind(own_ivf, None)
    set_kind(own_ivf, "ivf-sq8")
    assert read_manifest(own_ivf) == before


def test_auto_goes_over_to_lists_when_a_scan_would_be_slow(
    own_flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_kind(own_flat, None)
    assert read_manifest(own_flat).kind == "flat"
    monkeypatch.setattr("indexer.search.kinds.MAX_FLAT_ITEMS", NUM_ITEMS)
    add_items(own_flat, made_up_features(2, seed=1), NUM_ITEMS)
    assert read_manifest(own_flat).kind == "ivf"
    set_kind(own_flat, None, memory_bytes=estimate_bytes("ivf-sq8", NUM_ITEMS + 1))
    assert read_manifest(own_flat).kind == "ivf-sq8"
    set_kind(own_flat, "auto", memory_bytes=estimate_bytes("ivf-fp16", NUM_ITEMS + 1))
    assert read_manifest(own_flat).kind == "ivf-fp16"


def test_the_same_items_make_the_same_structure(own_flat: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own_flat, tmp_path / "other"))
    for directory in (own_flat, other):
        set_kind(directory, "ivf-sq8")
    assert read_manifest(own_flat).artefacts == read_manifest(other).artefacts


@pytest.mark.parametrize(
    ("count", "memory_gb", "kind"),
    [
        (0, 1, "flat"),
        (MAX_FLAT_ITEMS, 0.001, "flat"),
        (MAX_FLAT_ITEMS + 1, 4, "ivf"),
        (100_000, 4, "ivf"),
        (100_000, 3, "ivf-fp16"),
        (100_000, 1, "ivf-sq8"),
        (1_000_000, 64, "ivf"),
        (1_000_000, 24, "ivf-fp16"),
        (1_000_000, 12, "ivf-sq8"),
    ],
)
def test_auto_takes_the_most_precise_kind_that_fits(
    count: int, memory_gb: float, kind: str
) -> None:
    choice = choose("auto", count, int(memory_gb * GB))
    assert (choice.kind, choice.warning) == (kind, None)
    assert choice.memory_bytes <= memory_gb * GB


def test_what_fits_nowhere_is_made_all_the_same_and_says_what_it_needs() -> None:
    for asked in ("auto", "ivf-sq8"):
        choice = choose(asked, 1_000_000, GB)
        assert choice.kind == "ivf-sq8"
        assert choice.warning is not None
        assert "ivf-sq8 needs about 8.3 GB, more than the 1.0 GB of --memory" in choice.warning
    assert choose("hnsw-fp16", 10, GB).kind == "hnsw-fp16"


def test_the_budget_is_half_of_the_memory_unless_given() -> None:
    assert 0 < default_memory_bytes() < 2**60
    assert choose("auto", 10**9).warning is not None


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4GB", 4 * GB),
        ("512 mb", 512 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("1000", 1000),
        ("2T", 2 * 10**12),
        ("64k", 64_000),
    ],
)
def test_a_memory_size_is_read_as_people_write_it(text: str, num_bytes: int) -> None:
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(4 * GB, "4.0 GB"), (GB - 1, "1,000.0 MB"), (10**6, "1.0 MB"), (1500, "1.5 kB")],
)
def test_a_size_is_written_in_the_unit_that_suits_it(num_bytes: int, text: str) -> None:
    assert format_size(num_bytes) == text


@pytest.mark.parametrize("text", ["", "much", "-1GB", "4 apples", "0", "1.5.2GB", "nan", "1e999GB"])
def test_a_memory_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(
        UserError, match=r"--memory takes a size such as 4GB, 512MB or 1\.5GiB, got"
    ):
        parse_memory(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "should hold .* bytes but has"),
        (
            lambda file: file.write_bytes(bytes(file.stat().st_size)),
            "is damaged, FAISS cannot read it",
        ),
        (
            lambda file: file.write_bytes(
                file.read_bytes()[:4] + bytes(40) + file.read_bytes()[44:]
            ),
            "is damaged",
        ),
    ],
)
def test_a_damaged_structure_is_named_with_what_to_do(
    own_ivf: Path, damage: object, message: str
) -> None:
    assert callable(damage)
    damage(own_ivf / read_manifest(own_ivf).artefacts["cosine"].file)
    with pytest.raises(
        IndexDirectoryError, match=rf"cosine-\d+\.faiss {message}.*run: lookalike index verify"
    ):
        open_for_queries(own_ivf)
    assert not verify(own_ivf).is_clean
    mend(own_ivf)
    assert sorted(read_manifest(own_ivf).artefacts) == ["cosine", "euclidean"]
    assert (read_manifest(own_ivf).generation, read_manifest(own_ivf).is_complete) == (0, True)
    assert verify(own_ivf).is_clean
    assert share_found(Index.open(own_ivf), made_up_features(20, seed=3), "cosine") >= 0.9


def test_a_reader_that_comes_when_a_structure_is_replaced_finds_the_next(
    own_ivf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Index.open(own_ivf)
    compact(own_ivf, kind="ivf-fp16")
    set_kind(own_ivf, None)  # the next writer sweeps what the last one replaced
    assert not (own_ivf / earlier.manifest.artefacts["euclidean"].file).exists()
    indexes = iter([earlier, Index.open(own_ivf)])
    monkeypatch.setattr("indexer.opening.Index.open", lambda _: next(indexes))
    assert open_for_queries(own_ivf)[0].manifest.kind == "ivf-fp16"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", BUILT)
def test_a_structure_made_on_a_gpu_is_searched_there_and_on_a_cpu(
    own_flat: Path, kind: Kind
) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("needs a GPU")
    with IndexWriter.open(own_flat) as writer:
        update_search(writer, kind=kind, device="gpu")
        writer.commit()
    remove_items(own_flat, Index.open(own_flat).ids[::5].tolist())
    index = Index.open(own_flat)
    queries = made_up_features(20, seed=3)
    for metric in METRICS:
        on_gpu, on_cpu = (
            Searcher(index, device=device).search(queries, 10, metric=metric)
            for device in ("gpu", "cpu")
        )
        assert (
            np.mean(
                [len({*ids_of(a)} & {*ids_of(b)}) / 10 for a, b in zip(on_gpu, on_cpu, strict=True)]
            )
            >= 0.95
        )
