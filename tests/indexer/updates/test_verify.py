"""Verification: every changed byte is found, and what is lost is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import (
    COPY_FILE,
    MAP,
    PROBE,
    IndexDirectoryError,
    read_manifest,
    write_manifest,
)
from indexer.storage.records import RECORD
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import LostItem, verify
from tests.conftest import Run
from tests.indexer.damage import flip, some_positions, truncate
from tests.indexer.items import features_by_path
from tests.indexer.updates.conftest import GROWING_FILES, WRITTEN_ONCE


def test_an_undamaged_index_is_clean(eventful: Path) -> None:
    result = verify(eventful)
    assert result.is_clean
    assert (result.num_items, result.lost) == (17, [])
    checked = [file for file in eventful.rglob("*") if file.is_file() and file.name != ".lock"]
    assert result.num_bytes == sum(file.stat().st_size for file in checked)


@pytest.mark.parametrize("name", [*GROWING_FILES, *WRITTEN_ONCE])
def test_a_single_changed_byte_is_found_wherever_it_is(eventful: Path, name: str) -> None:
    positions = some_positions(eventful / name)
    if name == "model/model.onnx":
        positions = positions[:4]  # it has 80 MB, which are read again for each position
    for position in positions:
        flip_back = flip(eventful / name, position)
        damaged = [damage.file for damage in verify(eventful).damages]
        assert str(eventful / name) in damaged, position
        flip_back()
    assert verify(eventful).is_clean


def test_every_single_changed_byte_of_the_manifest_is_found_even_in_a_line_end(
    eventful: Path,
) -> None:
    file = eventful / "manifest.json"
    content = file.read_bytes()
    for position, byte in enumerate(content):
        for pattern in (1, 7, 255):  # 7 turns a line feed into a carriage return
            file.write_bytes(content[:position] + bytes([byte ^ pattern]) + content[position + 1 :])
            with pytest.raises(IndexDirectoryError):
                read_manifest(eventful)
    for length in range(0, len(content), 50):
        file.write_bytes(content[:length])
        with pytest.raises(IndexDirectoryError, match=r"manifest\.json is damaged"):
            read_manifest(eventful)
    file.write_bytes(content.replace(b"\n", b"\r\n"))
    with pytest.raises(IndexDirectoryError, match=r"manifest\.json is damaged"):
        read_manifest(eventful)


@pytest.mark.parametrize("name", [*GROWING_FILES, *WRITTEN_ONCE])
def test_a_truncated_or_missing_file_is_found(eventful: Path, name: str) -> None:
    size = (eventful / name).stat().st_size
    for length in (size - 1, size // 2, 0):
        truncate(eventful / name, length)
        assert str(eventful / name) in [damage.file for damage in verify(eventful).damages]
    (eventful / name).unlink()
    sentences = [f"{damage.file} {damage.what}" for damage in verify(eventful).damages]
    assert f"{eventful / name} is missing" in sentences


def test_bytes_beyond_the_committed_length_do_not_count(eventful: Path) -> None:
    for name in GROWING_FILES:
        with (eventful / name).open("ab") as file:
            file.write(b"left by a killed writer")
    assert verify(eventful).is_clean
    paths = {item.path for item in Index.open(eventful).items()}
    assert features_by_path(eventful).keys() == paths


@pytest.mark.parametrize(
    ("name", "row_bytes", "part"),
    [("features-0.f32", 4 * 4096, "feature"), ("records-0.bin", RECORD.itemsize, "record")],
)
def test_lost_items_are_named(eventful: Path, name: str, row_bytes: int, part: str) -> None:
    removed_row, hit = 1, Index.open(eventful).items()[4]
    flip(eventful / name, removed_row * row_bytes + 50)
    assert verify(eventful).lost == []
    flip(eventful / name, (hit.id - 1) * row_bytes + row_bytes - 1)
    id = None if part == "record" else hit.id  # the id in a damaged record may be wrong
    assert verify(eventful).lost == [LostItem(id, hit.path, (part,))]
    assert "has lost 1 of 17 items" in [damage.what for damage in verify(eventful).damages]


def test_a_damaged_path_is_shown_as_far_as_it_can_be_read(eventful: Path) -> None:
    position = (eventful / "texts-0.utf8").read_bytes().index(b"red/3.png")
    with (eventful / "texts-0.utf8").open("r+b") as file:
        file.seek(position)
        file.write(b"\xff")
    (lost,) = verify(eventful).lost
    assert (lost.path, lost.parts) == ("\\xffed/3.png", ("path",))


@pytest.mark.parametrize("field", ["text_at", "path_bytes", "path_hash"])
def test_a_damaged_record_does_not_claim_the_path_of_another_item(
    eventful: Path, field: str
) -> None:
    assert RECORD.fields is not None
    flip(eventful / "records-0.bin", 7 * RECORD.itemsize + RECORD.fields[field][1] + 3)
    parts = ("record",) if field == "path_hash" else ("record", "path")
    assert verify(eventful).lost == [LostItem(None, None, parts)]


def test_a_damaged_list_of_removed_items_loses_no_item(eventful: Path) -> None:
    flip(eventful / "removed-0.u64", 3)
    result = verify(eventful)
    (damage,) = result.damages
    assert (Path(damage.file).name, damage.part) == ("removed-0.u64", "removals")
    assert damage.what == "does not match its checksum"
    assert damage.remedy.endswith(" --mend (removed items may then return)")
    assert result.lost == []


def test_a_damaged_copy_of_the_manifest_is_found(eventful: Path) -> None:
    flip(eventful / COPY_FILE, 100)
    (damage,) = verify(eventful).damages
    assert (damage.file, damage.part) == (str(eventful / COPY_FILE), "manifest")
    assert damage.remedy == f"to write it again, run: lookalike index verify {eventful} --mend"


def test_if_the_manifest_and_its_copy_are_damaged_nothing_can_be_verified(eventful: Path) -> None:
    for name in (COPY_FILE, "manifest.json"):
        flip(eventful / name, 100)
    message = r"manifest\.json is damaged .*restore it from a copy, or build the index again"
    with pytest.raises(IndexDirectoryError, match=message):
        verify(eventful)


def test_the_remedy_fits_the_damaged_artefact(eventful: Path) -> None:
    """Verification knows artefacts by their names only, and needs nothing that reads them."""
    with IndexWriter.open(eventful) as writer:
        for name in ("euclidean", PROBE, MAP):
            with writer.artefact(name, "npz", {"kind": "ivf"}) as file:
                file.write_bytes(bytes(100))
        writer.commit()
    artefacts = read_manifest(eventful).artefacts
    for name in ("euclidean", PROBE, MAP):
        flip(eventful / artefacts[name].file, 50)
    remedies = {Path(damage.file).name: damage.remedy for damage in verify(eventful).damages}
    mending = f"lookalike index verify {eventful} --mend"
    assert remedies == {
        artefacts["euclidean"].file: f"to make it again, run: {mending}",
        artefacts[PROBE].file: f"to drop it, run: {mending}; "
        f"then fit it again with: lookalike index probe {eventful}",
        artefacts[MAP].file: f"to drop it, run: {mending}",
    }


def test_a_commit_that_comes_during_a_verification_is_not_damage(
    eventful: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salvage = Index.salvage
    with IndexWriter.open(eventful) as writer:
        earlier = writer.manifest
        writer.rewrite(writer.index.rows)
    later = read_manifest(eventful)
    write_manifest(earlier, eventful)
    num_opened = 0

    def salvage_then_commit(directory: Path) -> Index:
        nonlocal num_opened
        num_opened += 1
        index = salvage(directory)
        write_manifest(later, directory)
        return index

    monkeypatch.setattr(Index, "salvage", salvage_then_commit)
    assert verify(eventful).is_clean
    assert num_opened == 2


def test_a_read_only_volume_can_be_verified(
    shared_eventful: Path, read_only: Callable[[Path], Path]
) -> None:
    assert verify(read_only(shared_eventful)).is_clean


def test_the_command_says_what_is_lost_and_exits_with_1(eventful: Path, run: Run) -> None:
    status, out, _ = run("index", "verify", eventful)
    assert (status, out[:17]) == (0, "clean: 17 images,")
    flip(eventful / "features-0.f32", 10 * 4 * 4096)
    status, out, _ = run("index", "verify", eventful)
    assert status == 1
    assert f"{eventful / 'features-0.f32'} does not match its checksum; restore it" in out
    assert "lost: item 11, green/4.png (feature)" in out
    status, out, _ = run("index", "verify", eventful, "--json")
    printed = json.loads(out)
    assert (status, printed["is_clean"]) == (1, False)
    assert printed["lost"] == [{"id": 11, "path": "green/4.png", "parts": ["feature"]}]
    assert {damage["part"] for damage in printed["damages"]} == {"items"}
    assert "num_kept" not in printed
