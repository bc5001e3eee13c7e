"""Stamps: an untouched file is not read, and a file that was only touched is read once."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import STAMPS, read_manifest
from indexer.storage.stamps import read_stamps, renew_stamps
from indexer.storage.writer import IndexWriter
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.mend import mend
from indexer.updates.verify import verify
from training.data.images import TarMember, read_bytes

Build = Callable[[], int]


@pytest.fixture
def num_read(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Build:
    """Builds the index of `own_colour_folder`; returns how many of its images were read."""
    files: list[Path | TarMember] = []

    def counting(source: Path | TarMember) -> bytes:
        files.append(source)
        return read_bytes(source)

    monkeypatch.setattr("indexer.updates.prepare.RACY_S", 0.0)
    monkeypatch.setattr("indexer.updates.prepare.read_bytes", counting)

    def build_and_count() -> int:
        files.clear()
        build(str(own_colour_folder), tiny_model, tmp_path / "index", device="cpu")
        return len(files)

    build_and_count()
    return build_and_count


def touch(folder: Path, *names: str) -> None:
    for name in names:
        os.utime(folder / name, (1e9, 1e9))


def test_a_renewed_stamp_replaces_the_one_in_the_record(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        renew_stamps(writer, {3: 33, 5: 2**64 - 1})
        writer.commit()
        writer.remove([3])
        writer.commit()
    with IndexWriter.open(index) as writer:
        renew_stamps(writer, {7: 77})
        writer.commit()
    stamps = read_stamps(Index.open(index))
    assert stamps[[4, 6]].tolist() == [2**64 - 1, 77]
    assert np.count_nonzero(stamps) == 2
    assert Index.open(index).records["stamp"].tolist() == [0] * 20


def test_without_touched_files_no_artefact_is_written(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        renew_stamps(writer, {})
        writer.commit()
    assert STAMPS not in read_manifest(index).artefacts


def test_a_file_that_was_only_touched_is_read_once_and_its_item_stays(
    num_read: Build, own_colour_folder: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    before = Index.open(index)
    touch(own_colour_folder, "red/0.png", "blue/3.png")
    assert [num_read(), num_read()] == [2, 0]
    after = Index.open(index)
    assert after.items() == before.items()
    assert after.manifest.files == before.manifest.files
    touch(own_colour_folder, "red/0.png", "green/1.png")
    assert [num_read(), num_read()] == [2, 0]
    assert verify(index).is_clean


def test_a_build_of_files_that_were_not_touched_commits_nothing(
    num_read: Build, own_colour_folder: Path, tmp_path: Path
) -> None:
    touch(own_colour_folder, "red/0.png")
    num_read()
    before = read_manifest(tmp_path / "index")
    assert num_read() == 0
    assert read_manifest(tmp_path / "index") == before


def test_renewed_stamps_outlast_a_compaction_and_are_forgotten_with_their_items(
    num_read: Build, own_colour_folder: Path, tmp_path: Path
) -> None:
    touch(own_colour_folder, "red/0.png", "red/1.png", "blue/3.png")
    num_read()
    (own_colour_folder / "red" / "0.png").unlink()
    (own_colour_folder / "blue" / "0.png").unlink()
    num_read()
    compact(tmp_path / "index", force=True)
    assert num_read() == 0
    touch(own_colour_folder, "blue/4.png")
    assert [num_read(), num_read()] == [1, 0]


def test_without_the_artefact_files_are_read_again_and_nothing_is_lost(
    num_read: Build, own_colour_folder: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    for content in (b"", bytes(500)):
        touch(own_colour_folder, "red/0.png", "blue/3.png")
        num_read()
        (index / read_manifest(index).artefacts[STAMPS].file).write_bytes(content)
        assert not verify(index).is_clean
        assert [num_read(), num_read()] == [2, 0]
        assert verify(index).is_clean
    (index / read_manifest(index).artefacts[STAMPS].file).unlink()
    assert mend(index) == 18
    assert verify(index).is_clean
    assert read_manifest(index).generation == 0
