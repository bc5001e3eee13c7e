"""Commits: what is on the disk before one counts, and what is left if it fails."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import COPY_FILE, IndexDirectoryError, read_copy, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.mend import mend
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.indexer.items import made_up_features, made_up_item, stand_in_model
from training.network.model import CARD_FILE


@pytest.fixture
def reduced(index: Path) -> Path:
    """Nineteen items; the item with the id 1 has been removed."""
    remove(index, ids=[1])
    return index


@pytest.fixture
def num_card_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how often model.json has been read as text."""
    num_reads, read_text = 0, Path.read_text

    def counting(file: Path, *arguments: Any, **options: Any) -> str:
        nonlocal num_reads
        num_reads += file.name == CARD_FILE
        return read_text(file, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", counting)
    return lambda: num_reads


def sizes(directory: Path) -> dict[str, int]:
    return {
        str(file.relative_to(directory)): file.stat().st_size
        for file in directory.rglob("*")
        if file.is_file()
    }


def die(*_: object) -> None:
    raise MemoryError("as if killed here")


def test_what_was_not_committed_is_off_the_disk_when_the_writer_has_closed(reduced: Path) -> None:
    before = sizes(reduced)
    with IndexWriter.open(reduced) as writer:
        writer.add(made_up_item(1, np.ones(4096, np.float32)))
        with writer.artefact("euclidean", "faiss", {}) as path:
            path.write_bytes(bytes(1000))
    assert sizes(reduced) == before


def test_a_commit_without_changes_writes_nothing(reduced: Path) -> None:
    before = (reduced / "manifest.json").read_bytes()
    with IndexWriter.open(reduced) as writer:
        writer.remove([1, 99])
        writer.commit()
        writer.commit(is_complete=writer.manifest.is_complete)
    assert (reduced / "manifest.json").read_bytes() == before


def test_items_of_one_writer_can_be_removed_before_and_after_their_commit(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        ids = [writer.add(made_up_item(100 + n, made_up_features(1)[0])) for n in range(4)]
        writer.remove([ids[0]])
        assert writer.num_items == 23
        writer.commit()
        writer.remove([ids[1], ids[0], 5])
        writer.commit()
    opened = Index.open(index)
    assert [ids[0] in opened.ids, ids[1] in opened.ids, 5 in opened.ids] == [False] * 3
    assert opened.count() == opened.manifest.num_items == 21
    assert set(ids[2:]) <= set(opened.ids.tolist())


def test_a_commit_whose_end_fails_is_not_cut_off(
    reduced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest may have been replaced already when an error or Ctrl-C comes."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with IndexWriter.open(reduced) as writer:
        writer.add(made_up_item(1, np.ones(4096, np.float32)))
        monkeypatch.setattr("indexer.storage.manifest.write_copy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
    assert (Index.open(reduced).count(), verify(reduced).is_clean) == (20, True)


@pytest.mark.parametrize(
    ("change", "num_items"),
    [(lambda index: remove(index, ids=[2]), 18), (lambda index: compact(index, force=True), 19)],
)
def test_a_writer_that_is_killed_between_the_manifest_and_its_copy_leaves_two_whole_commits(
    reduced: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    num_items: int,
    tmp_path: Path,
) -> None:
    before = read_manifest(reduced)
    with monkeypatch.context() as patched:
        patched.setattr("indexer.storage.manifest.write_copy", die)
        with pytest.raises(MemoryError):
            change(reduced)
    assert Index.open(reduced).count() == num_items
    assert verify(reduced).is_clean
    assert read_copy(reduced) == before
    other = Path(shutil.copytree(reduced, tmp_path / "other"))
    (reduced / "manifest.json").write_bytes(b"damaged")
    message = (
        r"manifest\.json is damaged .*; "
        r"to restore it from its copy, run: lookalike index verify .* --mend$"
    )
    with pytest.raises(IndexDirectoryError, match=message):
        Index.open(reduced)
    assert (mend(reduced), verify(reduced).is_clean, read_manifest(reduced)) == (19, True, before)
    IndexWriter.open(other).close()
    assert read_copy(other) == read_manifest(other)
    generation = read_manifest(other).generation
    numbers = {int(name.split("-")[1].split(".")[0]) for name in sizes(other) if "-" in name}
    assert numbers == {generation}


def test_a_copy_of_the_manifest_that_could_not_be_written_is_written_by_the_next_writer(
    reduced: Path,
) -> None:
    (reduced / COPY_FILE).unlink()
    (reduced / COPY_FILE).parent.rmdir()
    (reduced / COPY_FILE).parent.write_bytes(b"in the way")
    remove(reduced, ids=[2])
    assert (read_copy(reduced), verify(reduced).is_clean) == (None, True)
    (reduced / COPY_FILE).parent.unlink()
    remove(reduced, ids=[3])
    assert read_copy(reduced) == read_manifest(reduced)


def test_the_files_that_a_manifest_names_are_durable_before_it(
    reduced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sync of its directory, a power cut may lose a new file but keep a later rename."""
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
    compact(reduced, force=True, kind="ivf")
    manifest_event = f"to {reduced / 'manifest.json'}"
    commits = [position for position, event in enumerate(events) if event == manifest_event]
    growing = [str(file) for file in reduced.glob("*-1.*")]
    structures = [f"to {file}" for file in reduced.glob("*.faiss")]
    assert (len(growing), len(structures)) == (5, 2)
    for name in (*growing, *structures):
        made = events.index(name)
        commit = next(position for position in commits if position > made)
        assert str(reduced) in events[made:commit], name


def test_a_rewrite_keeps_the_given_rows_and_forgets_removed_ones(reduced: Path) -> None:
    before = {item.id: item for item in Index.open(reduced).items()}
    with IndexWriter.open(reduced) as writer:
        writer.rewrite(writer.index.rows[::2], is_complete=False)
        assert writer.add(made_up_item(100, made_up_features(1)[0])) == 21
        writer.remove([2])
        writer.commit()
    opened = Index.open(reduced)
    kept = {item.id: item for item in opened.items()}
    assert kept.pop(21).path == "100.png"
    assert kept == {id: before[id] for id in range(4, 21, 2)}
    assert (opened.manifest.num_rows, opened.manifest.is_complete) == (11, False)
    assert verify(reduced).is_clean


def test_opening_with_another_model_is_refused(index: Path, tmp_path: Path) -> None:
    card = (stand_in_model(tmp_path / "other") / CARD_FILE).read_text()
    (tmp_path / "other" / CARD_FILE).write_text(card.replace("0" * 64, "ab" * 32))
    with pytest.raises(
        IndexDirectoryError, match=r"was built with model 0{12} but .* is model (ab){6}; pass"
    ):
        IndexWriter.open(index, tmp_path / "other")
    IndexWriter.open(index).close()  # the lock is free again


def test_a_fresh_build_reads_the_models_card_once(
    colour_folder: Path, tiny_model: Path, tmp_path: Path, num_card_reads: Callable[[], int]
) -> None:
    build(str(colour_folder), tiny_model, tmp_path / "index", device="cpu")
    assert num_card_reads() == 1
    build(str(colour_folder), tiny_model, tmp_path / "index", device="cpu")
    assert num_card_reads() == 2
