"""The pipeline: outcomes are written in order, counted, and committed every few seconds."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.embedder import Embedder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.pipeline import Report, index_images
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.conftest import coloured
from tests.indexer.items import made_up_item
from training.data.examples import Example


def take_in(directory: Path, examples: Sequence[Example], *, is_build: bool = False) -> Report:
    with IndexWriter.open(directory) as writer:
        report = index_images(examples, Embedder(directory / "model"), writer, is_build=is_build)
        writer.commit()
    return report


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Two new images, a file that is not an image, and a copy of the first."""
    for number, seed in enumerate((501, 502, None, 501)):
        if seed is None:
            (tmp_path / f"{number}.png").write_bytes(b"nothing like an image")
        else:
            coloured("red", seed).save(tmp_path / f"{number}.png")
    return [Example(f"{number}.png", None, tmp_path / f"{number}.png") for number in range(4)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_items_are_written_in_the_order_of_the_examples(
    own_index: Path, examples: list[Example], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.updates.pipeline.BATCH_SIZES", {"cpu": batch_size})
    report = take_in(own_index, examples)
    assert (report.num_added, report.num_unchanged, len(report.skipped)) == (2, 1, 1)
    items = Index.open(own_index).items(limit=100)[18:]
    assert [item.path for item in items] == ["0.png", "1.png"]


def test_a_build_keeps_copies_and_an_addition_does_not(
    own_index: Path, examples: list[Example]
) -> None:
    assert take_in(own_index, examples, is_build=True).num_added == 3
    assert Index.open(own_index).rows_of_path("3.png").size == 1


def test_an_example_whose_file_vanished_is_skipped(own_index: Path, tmp_path: Path) -> None:
    vanished = Example("red/vanished.png", "red", tmp_path / "vanished.png")
    report = take_in(own_index, [vanished])
    assert "cannot be read: No such file" in report.skipped[0].reason


def test_every_interval_ends_with_a_commit(
    own_index: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_manifest(own_index).commit
    monkeypatch.setattr("indexer.updates.pipeline.COMMIT_INTERVAL_S", -1.0)
    take_in(own_index, examples)
    assert read_manifest(own_index).commit == first + 2


def test_readers_beside_a_busy_writer_see_whole_commits_only(own_index: Path) -> None:
    """Two hundred commits and ten compactions, while a thread opens the index again and again."""
    complaints, num_opened, is_over = list[str](), 0, threading.Event()
    has_opened = threading.Condition()

    def read() -> None:
        opened = Index.open(own_index)
        paths = {item.path for item in opened.items(limit=1000)}
        if not len(paths) == opened.count() == opened.manifest.num_items:
            complaints.append(f"{len(paths)} of {opened.manifest.num_items}")
        if "red/0.png" not in paths:
            complaints.append("red/0.png is missing")
        if num_opened % 10 == 0 and not (result := verify(own_index)).is_clean:
            complaints.append(str(result.damages))

    def read_until_over() -> None:
        nonlocal num_opened
        while not is_over.is_set():
            try:
                read()
            except Exception as error:
                complaints.append(repr(error))
            with has_opened:
                num_opened += 1
                has_opened.notify()

    reader = threading.Thread(target=read_until_over)
    reader.start()
    try:
        for number in range(100):
            with IndexWriter.open(own_index) as writer:
                newest = [
                    writer.add(made_up_item(10 * number + place, np.ones(4096, np.float32)))
                    for place in range(4)
                ]
                writer.commit()
                writer.remove(newest[number % 2 :])
                writer.commit()
            if number % 10 == 9:
                compact(own_index, force=True)
                with has_opened:  # so that a slow reader sees several commits too
                    has_opened.wait()
    finally:
        is_over.set()
        reader.join()
    assert complaints == []
    assert num_opened > 5
    assert Index.open(own_index).count() == 18 + 50


def test_a_second_writer_is_refused_until_the_first_has_finished(
    own_index: Path, more: Path, colour_folder: Path, tiny_model: Path
) -> None:
    changes: tuple[Callable[[], object], ...] = (
        lambda: build(str(colour_folder), tiny_model, own_index, device="cpu"),
        lambda: add(own_index, [str(more)]),
        lambda: remove(own_index, ids=[1]),
        lambda: compact(own_index),
    )
    with IndexWriter.open(own_index):
        for change in changes:
            with pytest.raises(IndexDirectoryError, match="being changed by another process"):
                change()
    assert remove(own_index, ids=[1]) == 1
