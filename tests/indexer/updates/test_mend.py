"""Mending: what is intact stays, what can be made again is made again, and the rest is dropped."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import COPY_FILE, PROBE, IndexDirectoryError, read_manifest
from indexer.storage.records import RECORD
from indexer.storage.writer import IndexWriter
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.mend import mend
from indexer.updates.verify import verify
from tests.conftest import Run
from tests.indexer.damage import flip, some_positions, truncate
from tests.indexer.items import features_by_path, items_by_path


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: flip(file, 100),
        lambda file: file.write_bytes(
            file.read_bytes().replace(b'"format_version": 3', b'"format_version": 6')
        ),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
)
def test_a_damaged_manifest_is_restored_from_its_copy(
    eventful: Path,
    damage: Callable[[Path], object],
    run: Run,
    colour_folder: Path,
    tiny_model: Path,
) -> None:
    file = eventful / "manifest.json"
    content = file.read_bytes()
    damage(file)
    problem = rf"{file} is (damaged \(.*\)|missing)"
    remedy = f"to restore it from its copy, run: lookalike index verify {eventful} --mend"
    for command in (
        ("stats", eventful),
        ("add", eventful, colour_folder),
        ("build", colour_folder, "--model", tiny_model, "--out", eventful),
    ):
        status, _, err = run("index", *command)
        assert status == 1
        assert re.fullmatch(rf"lookalike: {problem}; {remedy}\n", err)
    status, out, _ = run("index", "verify", eventful)
    assert status == 1
    assert re.fullmatch(rf"{problem}; {remedy}\n", out)
    status, out, _ = run("index", "verify", eventful, "--mend")
    assert (status, out.splitlines()[0], file.read_bytes()) == (0, "17 images kept", content)


def test_a_damaged_copy_of_the_manifest_is_written_again(eventful: Path) -> None:
    content = (eventful / COPY_FILE).read_bytes()
    flip(eventful / COPY_FILE, 100)
    assert mend(eventful) == 17
    assert verify(eventful).is_clean
    assert (eventful / COPY_FILE).read_bytes() == content


def test_if_the_manifest_and_its_copy_are_damaged_nothing_can_be_mended(eventful: Path) -> None:
    for name in (COPY_FILE, "manifest.json"):
        flip(eventful / name, 100)
    message = r"manifest\.json is damaged .*restore it from a copy, or build the index again"
    with pytest.raises(IndexDirectoryError, match=message):
        mend(eventful)


def test_truncated_records_are_lost_and_removed_items_are_not_counted(eventful: Path) -> None:
    truncate(eventful / "records-0.bin", RECORD.itemsize)
    assert "has lost 16 of 17 items" in [damage.what for damage in verify(eventful).damages]
    assert mend(eventful) == 1
    assert Index.open(eventful).items()[0].path == "blue/0.png"


@pytest.mark.parametrize(
    "name", ["records-0.bin", "features-0.f32", "texts-0.utf8", "thumbnails-0.jpeg"]
)
def test_mending_keeps_exactly_the_intact_items_and_a_build_brings_back_the_rest(
    eventful: Path, name: str, colour_folder: Path, tiny_model: Path
) -> None:
    before, items = features_by_path(eventful), items_by_path(eventful)
    for position in some_positions(eventful / name)[:3]:
        flip(eventful / name, position)
    lost = verify(eventful).lost
    assert mend(eventful) == 17 - len(lost)
    after = features_by_path(eventful)
    assert after.items() <= before.items()
    assert all(Index.open(eventful).rows_of_ids([items[path].id]).size for path in after)
    assert verify(eventful).is_clean
    assert not Index.open(eventful).manifest.is_complete
    report = build(str(colour_folder), tiny_model, eventful, device="cpu")
    outdated = {"blue/1.png", "blue/4.png"}  # one was removed, the other replaced
    assert report.num_added + report.num_changed <= len(before.keys() - after.keys()) + len(
        outdated
    )
    assert report.num_unchanged >= len(after) - len(outdated)
    assert features_by_path(eventful).keys() == {
        str(file.relative_to(colour_folder)) for file in colour_folder.rglob("*.png")
    }
    assert verify(eventful).is_clean


@pytest.mark.parametrize("position", range(0, 16, 3))
def test_a_damaged_list_of_removed_items_brings_them_back_and_loses_none(
    eventful: Path, position: int
) -> None:
    before = features_by_path(eventful)
    flip(eventful / "removed-0.u64", position)
    assert mend(eventful) == 18
    after = features_by_path(eventful)
    assert {path: after[path] for path in before} == before
    assert after.keys() - before.keys() == {"blue/1.png"}
    assert read_manifest(eventful).artefacts == {}  # they were made without the item that is back
    assert verify(eventful).is_clean


def test_a_damaged_artefact_is_dropped_and_the_items_stay_as_they_are(eventful: Path) -> None:
    before = read_manifest(eventful)
    flip(eventful / "facts-3.npz", 100)
    assert (mend(eventful), verify(eventful).is_clean) == (17, True)
    after = read_manifest(eventful)
    assert (after.artefacts, after.files, after.generation) == ({}, before.files, 0)
    assert after.is_complete == before.is_complete
    IndexWriter.open(eventful).close()  # deletes what the last commit replaced
    assert not (eventful / "facts-3.npz").exists()


def test_a_damaged_structure_is_made_again(eventful: Path) -> None:
    compact(eventful, kind="ivf", device="cpu")
    flip(eventful / read_manifest(eventful).artefacts["euclidean"].file, 1000)
    assert mend(eventful) == 17
    assert verify(eventful).is_clean
    assert {"euclidean", "cosine"} <= read_manifest(eventful).artefacts.keys()


def test_a_damaged_probe_is_dropped_with_the_command_that_fits_it_again(
    eventful: Path, run: Run
) -> None:
    with IndexWriter.open(eventful) as writer:
        with writer.artefact(PROBE, "npz", {"labels": []}) as file:
            file.write_bytes(bytes(100))
        writer.commit()
    flip(eventful / read_manifest(eventful).artefacts[PROBE].file, 50)
    again = f"fit it again with: lookalike index probe {eventful}"
    assert (
        verify(eventful).damages[0].remedy
        == f"to drop it, run: lookalike index verify {eventful} --mend; then {again}"
    )
    status, _, err = run("index", "verify", eventful, "--mend")
    assert (status, err) == (0, f"the probe is dropped; {again}\n")


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_the_model_is_restored_only_from_the_same_model(
    eventful: Path, name: str, tiny_model: Path, other_model: Path, run: Run
) -> None:
    before = read_manifest(eventful)
    flip(eventful / "model" / name, 100)
    status, out, _ = run("index", "verify", eventful, "--mend")
    remedy = (
        f"to copy it again from model {before.model_id[:12]}, "
        f"run: lookalike index verify {eventful} --mend --model MODEL"
    )
    problem = f"{eventful / 'model' / name} does not match its checksum"
    assert (status, out) == (1, f"17 images kept\n{problem}; {remedy}\n")
    status, _, err = run("index", "verify", eventful, "--mend", "--model", other_model)
    assert (status, "was built with model" in err) == (1, True)
    assert read_manifest(eventful) == before
    assert run("index", "verify", eventful, "--mend", "--model", tiny_model).status == 0
    assert verify(eventful).is_clean
    after = read_manifest(eventful)
    assert (after.files, after.model_files) == (before.files, before.model_files)
    status, _, err = run("index", "verify", eventful, "--model", tiny_model)
    assert (status, "pass --mend too" in err) == (1, True)


def test_mending_a_clean_index_changes_nothing(eventful: Path) -> None:
    manifest = (eventful / "manifest.json").read_bytes()
    assert mend(eventful) == 17
    assert (eventful / "manifest.json").read_bytes() == manifest


def test_what_is_not_an_index_is_left_alone(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            mend(directory)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_volume_cannot_be_mended(
    shared_eventful: Path, read_only: Callable[[Path], Path]
) -> None:
    with pytest.raises(IndexDirectoryError, match="cannot be changed"):
        mend(read_only(shared_eventful))


def test_the_command_says_how_many_images_are_kept(eventful: Path, run: Run) -> None:
    flip(eventful / "features-0.f32", 10 * 4 * 4096)
    status, out, _ = run("index", "verify", eventful, "--mend")
    assert (status, out.splitlines()[0]) == (0, "16 images kept")
    assert json.loads(run("index", "verify", eventful, "--json").out)["is_clean"]


def test_with_json_the_command_prints_only_json(eventful: Path, run: Run) -> None:
    flip(eventful / "features-0.f32", 10 * 4 * 4096)
    printed = json.loads(run("index", "verify", eventful, "--mend", "--json").out)
    assert (printed["is_clean"], printed["num_items"], printed["num_kept"]) == (True, 16, 16)
