"""How a commit comes about: what is on the disk before it counts, and what is left where it does not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import COPY_FILE, IndexDirectoryError, read_copy, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.build import remove
from indexer.updates.compact import compact
from indexer.updates.verify import mend, verify
from tests.indexer.items import made_up_item


@pytest.fixture
def index(tiny_index: Path, tmp_path: Path) -> Path:
    """Eighteen items, of which number 1 has been removed."""
    directory = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    remove(directory, ids=[1])
    return directory


def sizes(directory: Path) -> dict[str, int]:
    return {
        str(file.relative_to(directory)): file.stat().st_size
        for file in directory.rglob("*")
        if file.is_file()
    }


def test_what_was_not_committed_is_off_the_disk_once_the_writer_has_left(index: Path) -> None:
    before = sizes(index)
    with IndexWriter.open(index) as writer:
        writer.add(made_up_item(1, np.ones(4096, np.float32)))
        with writer.artefact("euclidean", "faiss", {}) as path:
            path.write_bytes(bytes(1000))
    assert sizes(index) == before


def test_a_commit_whose_end_fails_is_not_cut_off(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest may have been replaced by the time an error comes, or Ctrl-C."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with IndexWriter.open(index) as writer:
        writer.add(made_up_item(1, np.ones(4096, np.float32)))
        monkeypatch.setattr("indexer.storage.manifest.write_copy", die)
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
    assert (Index.open(index).count(), verify(index).is_clean) == (18, True)


@pytest.mark.parametrize(
    ("change", "num_items"),
    [(lambda index: remove(index, ids=[2]), 16), (lambda index: compact(index, force=True), 17)],
)
def test_a_writer_that_is_killed_between_the_manifest_and_its_copy_leaves_two_whole_commits(
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    num_items: int,
    tmp_path: Path,
) -> None:
    def die(*_: object) -> None:
        raise MemoryError("as if killed here")

    before = read_manifest(index)
    with monkeypatch.context() as patched:
        patched.setattr("indexer.storage.manifest.write_copy", die)
        with pytest.raises(MemoryError):
            change(index)
    assert (Index.open(index).count(), verify(index).is_clean, read_copy(index)) == (
        num_items,
        True,
        before,
    )
    other = Path(shutil.copytree(index, tmp_path / "other"))
    (index / "manifest.json").write_bytes(b"damaged")
    with pytest.raises(
        IndexDirectoryError,
        match=r"manifest\.json is damaged .*; run: lookalike index verify .* --mend",
    ):
        Index.open(index)
    assert (mend(index), verify(index).is_clean, read_manifest(index)) == (17, True, before)
    IndexWriter.open(other).close()
    assert read_copy(other) == read_manifest(other)
    generation = read_manifest(other).generation
    assert {int(name.split("-")[1].split(".")[0]) for name in sizes(other) if "-" in name} == {
        generation
    }


def test_a_copy_that_there_is_no_room_for_is_written_by_the_next_writer(index: Path) -> None:
    (index / COPY_FILE).unlink()
    (index / COPY_FILE).parent.rmdir()
    (index / COPY_FILE).parent.write_bytes(b"in the way")
    remove(index, ids=[2])
    assert (read_copy(index), verify(index).is_clean) == (None, True)
    (index / COPY_FILE).parent.unlink()
    remove(index, ids=[3])
    assert read_copy(index) == read_manifest(index)


def test_what_a_manifest_names_is_durable_before_it_is(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may take back a file that was created and not yet synced in its directory, and keep a later rename."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        events.append(f"to {target}")
        replace(source, target)

    monkeypatch.setattr("os.fsync", recording_fsync)
    monkeypatch.setattr("os.replace", recording_replace)
    compact(index, force=True, kind="ivf")
    commits = [
        place for place, event in enumerate(events) if event == f"to {index / 'manifest.json'}"
    ]
    named = [str(file) for file in index.glob("*-1.*")] + [
        f"to {file}" for file in index.glob("*.faiss")
    ]
    assert len(named) == 5 + 2
    for name in named:
        made = events.index(name)
        assert str(index) in events[made : next(commit for commit in commits if commit > made)], (
            name
        )
