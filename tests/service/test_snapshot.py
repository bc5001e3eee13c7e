"""A snapshot: one commit with its network, and the checks of a query against it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.array_types import Floats
from indexer.errors import UnknownLabelError
from indexer.metrics import DEFAULT_RERANK, HammingOnlyError, QueryMetric
from indexer.opening import open_index
from indexer.search.searcher import Searcher
from indexer.storage.manifest import read_manifest
from indexer.updates.remove import remove
from service.snapshot import KTooLargeError, MetricUnavailableError, Search, Snapshot
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR


def snapshot_of(directory: Path) -> Snapshot:
    return Snapshot(open_index(directory), max_k=10)


@pytest.fixture(scope="module")
def snapshot(tiny_index: Path) -> Snapshot:
    return snapshot_of(tiny_index)


@pytest.fixture(scope="module")
def encoded(encoded_index: Path) -> Snapshot:
    return snapshot_of(encoded_index)


def test_k_is_accepted_at_the_limit_and_refused_above_it(snapshot: Snapshot) -> None:
    assert snapshot.resolve(Search(k=10)).k == 10
    with pytest.raises(KTooLargeError, match="from 1 to 10, got 11"):
        snapshot.resolve(Search(k=11))


def test_empty_labels_are_left_out_and_labels_are_named_once(snapshot: Snapshot) -> None:
    assert snapshot.resolve(Search(k=3, labels=("",))) == Search(k=3)
    assert snapshot.known_labels(["red", "", "blue", "red"]) == ("red", "blue")


def test_one_unknown_label_of_several_is_refused_with_the_labels_there_are(
    snapshot: Snapshot,
) -> None:
    with pytest.raises(UnknownLabelError, match="purple; the labels are: blue, green, red"):
        snapshot.resolve(Search(k=3, labels=("red", "purple")))


def test_a_metric_that_needs_codes_is_refused_without_them(
    snapshot: Snapshot, encoded: Snapshot
) -> None:
    assert snapshot.metrics == ("euclidean", "cosine")
    with pytest.raises(MetricUnavailableError, match="lookalike index encode"):
        snapshot.resolve(Search(k=3, metric="hamming"))
    assert encoded.resolve(Search(k=3, metric="hamming")).rerank == DEFAULT_RERANK


def test_options_of_codes_are_refused_for_other_metrics(snapshot: Snapshot) -> None:
    with pytest.raises(HammingOnlyError, match="rerank"):
        snapshot.resolve(Search(k=3, rerank=5))
    with pytest.raises(HammingOnlyError, match="flips"):
        snapshot.resolve(Search(k=3, metric="cosine", flips=1))


def test_damaged_codes_leave_the_other_metrics(
    encoded_index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = Path(shutil.copytree(encoded_index, tmp_path / "index"))
    (damaged / read_manifest(damaged).files["codes"].file).write_bytes(b"")
    assert snapshot_of(damaged).metrics == ("euclidean", "cosine")
    assert "supports only euclidean and cosine" in caplog.text


def test_a_search_keeps_to_any_of_several_labels(snapshot: Snapshot) -> None:
    feature = snapshot.index.features[:1]
    search = snapshot.resolve(Search(k=10, labels=("red", "green")))
    (matches,) = snapshot.search(feature, search)
    assert {match.label for match in matches} == {"red", "green"}
    search = snapshot.resolve(Search(k=10, labels=("red",)))
    assert len(snapshot.search(feature, search)[0]) == NUM_IMAGES_PER_COLOUR


def test_a_snapshot_has_the_probe_and_the_map_of_its_index(
    snapshot: Snapshot, probed_index: Path, mapped_index: Path
) -> None:
    assert (snapshot.probe, snapshot.map) == (None, None)
    probe = snapshot_of(probed_index).probe
    assert probe
    assert sorted(probe.facts.labels) == sorted(COLOURS)
    item_map = snapshot_of(mapped_index).map
    assert item_map
    assert len(item_map.spots) == len(COLOURS) * NUM_IMAGES_PER_COLOUR


def test_a_trial_uses_the_network_and_every_metric(
    encoded: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    try_out = Searcher.try_out

    def note(searcher: Searcher, feature: Floats, metric: QueryMetric) -> None:
        tried.append(metric)
        try_out(searcher, feature, metric)

    monkeypatch.setattr(Searcher, "try_out", note)
    encoded.try_out()
    assert tried == ["euclidean", "cosine", "hamming"]


def test_an_index_without_items_can_be_tried_out_too(own_index: Path) -> None:
    remove(own_index, ids=range(1, 19))
    empty = snapshot_of(own_index)
    empty.try_out()
    assert empty.search(np.zeros((2, 4096), np.float32), empty.resolve(Search(k=3))) == [[], []]
