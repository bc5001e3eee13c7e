import errno
import os
from pathlib import Path

import pytest

from indexer.reports.distance_choice import better_metric, describe_choice, store_choice
from indexer.storage.directory import take_lock
from indexer.storage.distance_comparison import DistanceComparison
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from tests.indexer.items import made_up_features, make_index, stand_in_model


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of four made-up items in commit 1."""
    model = stand_in_model(tmp_path / "model")
    return make_index(tmp_path / "index", model, made_up_features(4), ["a", "b", "a", "b"])


def test_cosine_is_chosen_only_if_it_is_clearly_better() -> None:
    assert better_metric({"euclidean": 0.80, "cosine": 0.81}) == "cosine"
    assert better_metric({"euclidean": 0.80, "cosine": 0.804}) == "euclidean"
    assert better_metric({"euclidean": 0.81, "cosine": 0.80}) == "euclidean"


def test_without_labels_there_is_no_choice_and_no_sentence() -> None:
    assert better_metric({"euclidean": None, "cosine": None}) is None
    assert describe_choice({"euclidean": None, "cosine": None}, 6) is None


@pytest.mark.parametrize(
    ("euclidean", "cosine", "start"),
    [
        (0.80, 0.81, "Cosine distance ranks better"),
        (0.81, 0.80, "Euclidean distance ranks better"),
        (0.80, 0.804, "The distances rank about equally well"),
        (0.804, 0.80, "The distances rank about equally well"),
    ],
)
def test_the_sentence_names_the_better_distance_and_both_figures(
    euclidean: float, cosine: float, start: str
) -> None:
    sentence = describe_choice({"euclidean": euclidean, "cosine": cosine}, 6)
    assert sentence is not None
    assert sentence.startswith(start)
    assert "share of the 6 nearest with the query's label" in sentence
    assert f"{euclidean:.1%} by Euclidean distance" in sentence
    assert f"{cosine:.1%} by cosine distance" in sentence


def test_a_choice_is_stored_with_the_measured_commit(index: Path) -> None:
    store_choice(index, {"euclidean": 0.5, "cosine": 0.75}, k=6, commit=1)
    assert read_manifest(index).distance_comparison == DistanceComparison(
        better_metric="cosine", precisions={"euclidean": 0.5, "cosine": 0.75}, k=6, commit=1
    )


def test_the_last_measurement_counts(index: Path) -> None:
    store_choice(index, {"euclidean": 0.5, "cosine": 0.75}, k=6, commit=1)
    store_choice(index, {"euclidean": 0.75, "cosine": 0.5}, k=10, commit=2)
    stored = read_manifest(index).distance_comparison
    assert stored is not None
    assert (stored.better_metric, stored.k, stored.commit) == ("euclidean", 10, 2)


def test_a_measurement_that_changes_nothing_makes_no_commit(index: Path) -> None:
    store_choice(index, {"euclidean": None, "cosine": None}, k=6, commit=1)
    store_choice(index, {}, k=6, commit=1)
    assert read_manifest(index).commit == 1
    for commit in (1, 2):
        store_choice(index, {"euclidean": 0.5, "cosine": 1 / 3}, k=6, commit=commit)
        assert read_manifest(index).commit == 2


def test_without_labels_the_earlier_choice_stays(index: Path) -> None:
    store_choice(index, {"euclidean": 0.5, "cosine": 0.75}, k=6, commit=1)
    before = read_manifest(index)
    store_choice(index, {"euclidean": None, "cosine": None}, k=6, commit=2)
    assert read_manifest(index) == before


def test_if_another_process_changes_the_index_a_line_says_that_nothing_is_stored(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with take_lock(index):
        store_choice(index, {"euclidean": 0.5, "cosine": 0.75}, k=6, commit=1)
    printed = capsys.readouterr().err
    assert printed.startswith("The index does not keep which distance ranks better: ")
    assert "is being changed by another process" in printed
    assert len(printed.splitlines()) == 1
    assert read_manifest(index).distance_comparison is None


def test_on_a_full_disk_the_index_stays_as_it_is(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(index / MANIFEST_FILE))

    before = read_manifest(index)
    with monkeypatch.context() as patch:
        patch.setattr("indexer.storage.writer.write_manifest", fail)
        store_choice(index, {"euclidean": 0.5, "cosine": 0.75}, k=6, commit=1)
    assert "No space left on device" in capsys.readouterr().err
    assert read_manifest(index) == before
    take_lock(index).close()
