"""Structures are made, extended and dropped as an index changes."""

from pathlib import Path

import pytest

from indexer.metrics import METRICS
from indexer.search.kinds import estimate_bytes
from indexer.search.recall import RECALL_TARGET
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import read_manifest
from indexer.updates.compact import compact
from indexer.updates.verify import verify
from tests.indexer.search.structures import (
    NUM_ITEMS,
    add_items,
    clustered_features,
    ids_of,
    remove_items,
    set_kind,
)


def test_a_structure_is_extended_when_many_items_have_been_added(
    own_ivf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.update_structures.MIN_TAIL", 100)
    add_items(own_ivf, clustered_features(100, seed=1), NUM_ITEMS)
    before = read_manifest(own_ivf).artefacts["cosine"]
    assert before.facts["num_covered"] == NUM_ITEMS - 1
    new_ids = add_items(own_ivf, clustered_features(100, seed=2), NUM_ITEMS + 100)
    index = Index.open(own_ivf)
    for metric in METRICS:
        facts = index.manifest.artefacts[metric].facts
        assert (facts["num_covered"], facts["num_first"], facts["last_id"]) == (
            NUM_ITEMS + 199,
            NUM_ITEMS - 1,
            new_ids[-1],
        )
        assert facts["recall_at_10"] >= RECALL_TARGET
        assert [
            ids_of(matches)[0]
            for matches in Searcher(index).search(clustered_features(100, seed=2), 1, metric=metric)
        ] == new_ids
    assert verify(own_ivf).is_clean


def test_a_structure_is_built_again_when_it_has_outgrown_its_cells(
    own_ivf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.update_structures.MIN_TAIL", 100)
    monkeypatch.setattr("indexer.search.update_structures.MAX_GROWTH", 1.3)
    add_items(own_ivf, clustered_features(200, seed=1), NUM_ITEMS)
    facts = read_manifest(own_ivf).artefacts["euclidean"].facts
    assert (facts["num_covered"], facts["num_first"]) == (NUM_ITEMS + 199, NUM_ITEMS + 199)


def test_a_structure_is_built_again_when_most_of_its_items_are_gone(own_ivf: Path) -> None:
    ids = Index.open(own_ivf).ids.tolist()
    remove_items(own_ivf, ids[:250])
    add_items(own_ivf, [], 0)
    assert read_manifest(own_ivf).artefacts["euclidean"].facts["num_covered"] == NUM_ITEMS - 1
    remove_items(own_ivf, ids[250:350])
    add_items(own_ivf, [], 0)
    assert read_manifest(own_ivf).artefacts["euclidean"].facts["num_covered"] == NUM_ITEMS - 351


def test_a_structure_without_items_is_dropped_and_made_again_for_the_next_item(
    own_ivf: Path,
) -> None:
    remove_items(own_ivf, Index.open(own_ivf).ids.tolist())
    assert Searcher(Index.open(own_ivf)).search(clustered_features(1), 3) == [[]]
    compact(own_ivf)
    assert read_manifest(own_ivf).kind == "flat"
    add_items(own_ivf, clustered_features(1), 0)
    assert read_manifest(own_ivf).kind == "ivf-sq8"
    assert len(Searcher(Index.open(own_ivf)).search(clustered_features(1), 3)[0]) == 1


def test_a_compaction_keeps_the_structure_and_its_answers(own_ivf: Path) -> None:
    queries = clustered_features(20, seed=3)
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


def test_a_requested_kind_is_made_and_remembered(own_ivf: Path) -> None:
    compact(own_ivf, kind="ivf")
    assert read_manifest(own_ivf).kind == "ivf"
    compact(own_ivf, kind="flat")
    assert (read_manifest(own_ivf).kind, read_manifest(own_ivf).artefacts) == ("flat", {})
    add_items(own_ivf, clustered_features(3, seed=1), NUM_ITEMS)
    assert read_manifest(own_ivf).search == {"kind": "flat"}


def test_a_structure_that_is_up_to_date_is_left_alone(own_ivf: Path) -> None:
    before = read_manifest(own_ivf)
    set_kind(own_ivf, None)
    set_kind(own_ivf, "ivf-sq8")
    assert read_manifest(own_ivf) == before


def test_auto_changes_to_lists_when_a_scan_would_be_slow(
    own_flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_kind(own_flat, None)
    assert read_manifest(own_flat).kind == "flat"
    monkeypatch.setattr("indexer.search.kinds.MAX_FLAT_ITEMS", NUM_ITEMS)
    add_items(own_flat, clustered_features(2, seed=1), NUM_ITEMS)
    assert read_manifest(own_flat).kind == "ivf"
    set_kind(own_flat, None, memory_bytes=estimate_bytes("ivf-sq8", NUM_ITEMS + 1))
    assert read_manifest(own_flat).kind == "ivf-sq8"
    set_kind(own_flat, "auto", memory_bytes=estimate_bytes("ivf-fp16", NUM_ITEMS + 1))
    assert read_manifest(own_flat).kind == "ivf-fp16"
