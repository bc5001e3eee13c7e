"""Add images to an index: decode, embed, write, and commit every few seconds.

Each worker thread both decodes and embeds a few images at a time. So every core is busy, and no
thread waits for another thread. The writer receives the results in order. If a command was
interrupted, the same command continues from the last commit.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

from indexer.embedder import Embedder
from indexer.storage.row_writing import NewItem
from indexer.storage.stamps import read_stamps, renew_stamps
from indexer.storage.writer import IndexWriter
from indexer.updates.prepare import Decoded, Preparation, PreparedItem, Unchanged
from training.data.examples import Example
from training.data.skipped import SKIPPED_FILE, Skipped, write_skipped
from training.interruption import StopRequest, stop_on_signal
from training.parallel import map_ahead, num_cores
from training.progress import Bar, console

BATCH_SIZES = {"cpu": 32, "gpu": 128}
COMMIT_INTERVAL_S = 10.0


@dataclass
class Report:
    """The result of a build or an addition, in numbers of images."""

    num_items: int = 0
    """Number of items in the index afterwards."""
    num_added: int = 0
    num_changed: int = 0
    num_unchanged: int = 0
    num_removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def index_images(
    examples: Sequence[Example], embedder: Embedder, writer: IndexWriter, *, is_build: bool
) -> Report:
    """Embed the new images, write them, and commit every few seconds.

    The caller makes the last commit. After Ctrl-C, the images that are done are committed, and
    KeyboardInterrupt is raised.

    A build identifies an image by its path, so two paths may have the same bytes. An addition
    identifies an image by its bytes, and adds the same bytes only once.
    """
    writing = _Writing(writer, is_build=is_build)
    preparation = Preparation(
        writer.index, read_stamps(writer.index), embedder.card.image_size, keeps_copies=is_build
    )
    with stop_on_signal() as stop, Bar("Indexing", len(examples)) as bar:
        for outcome in _outcomes(examples, preparation, embedder, stop):
            writing.take(outcome)
            num_skipped = len(writing.report.skipped)
            bar.advance(1, f"{num_skipped:,} skipped" if num_skipped else None)
        is_stopped = stop.is_made and bar.num_done < len(examples)
    renew_stamps(writer, writing.renewed_stamps)
    if is_stopped:
        writing.end_early()
        raise KeyboardInterrupt
    return writing.report


class _Writing:
    """Writes the outcomes of examples in order, and counts them."""

    def __init__(self, writer: IndexWriter, *, is_build: bool):
        self._writer, self._is_build = writer, is_build
        self._is_complete = False if is_build else None
        """The `is_complete` of the commits during the run. None keeps the stored value."""
        self._committed_at = time.monotonic()
        self._added_contents: set[str] = set()
        self.report = Report()
        self.renewed_stamps: dict[int, int] = {}
        """Stamps of files that were touched but have the same bytes, by item id."""

    def take(self, outcome: PreparedItem) -> None:
        """Write the outcome of an example. Commit if the last commit was more than 10 s ago."""
        match outcome:
            case Skipped():
                self.report.skipped.append(outcome)
            case NewItem():
                self._add(outcome)
            case Unchanged(id=id, stamp=stamp):
                if id is not None and stamp:
                    self.renewed_stamps[id] = stamp
                self.report.num_unchanged += 1
        if time.monotonic() - self._committed_at > COMMIT_INTERVAL_S:
            self._writer.commit(is_complete=self._is_complete)
            self._committed_at = time.monotonic()

    def end_early(self) -> None:
        """Commit the images that are done, and print how many are in the index."""
        self._writer.commit(is_complete=self._is_complete)
        if self.report.skipped:
            write_skipped(self.report.skipped, self._writer.directory / SKIPPED_FILE)
        num_done = self.report.num_added + self.report.num_changed
        console.print(
            f"Interrupted: {num_done:,} images are in the index; "
            "run the same command again to continue"
        )

    def _add(self, item: NewItem) -> None:
        """Add an item, and remove an earlier item with the same path.

        An addition leaves out a new path if it has already added the same bytes.
        """
        index = self._writer.index
        earlier = index.records["id"][index.rows_of_path(item.path)].tolist()
        if not earlier and item.sha256 in self._added_contents:
            self.report.num_unchanged += 1
            return
        self._writer.remove(earlier)
        self._writer.add(item)
        if not self._is_build:
            self._added_contents.add(item.sha256)
        self.report.num_changed += len(earlier)
        self.report.num_added += not earlier


def _outcomes(
    examples: Sequence[Example], preparation: Preparation, embedder: Embedder, stop: StopRequest
) -> Iterator[PreparedItem]:
    """The outcome of each example, in order, until a stop is requested."""
    # On a GPU, one thread embeds at a time. On the CPU, each thread embeds with one core.
    turn = threading.Lock() if embedder.device == "gpu" else nullcontext()

    def work(chunk: Sequence[Example]) -> list[PreparedItem]:
        if stop.is_made:
            return []
        prepared = [preparation.prepare(example) for example in chunk]
        squares = [image.square for image in prepared if isinstance(image, Decoded)]
        if not squares:
            return [outcome for outcome in prepared if not isinstance(outcome, Decoded)]
        with turn:
            features = iter(embedder.embed(np.stack(squares)).features)
        return [
            image.with_feature(next(features)) if isinstance(image, Decoded) else image
            for image in prepared
        ]

    num_workers, size = num_cores(), BATCH_SIZES[embedder.device]
    chunks = (examples[start : start + size] for start in range(0, len(examples), size))
    with ThreadPoolExecutor(num_workers, thread_name_prefix="embed") as pool:
        for outcomes in map_ahead(pool, work, chunks, ahead=2 * num_workers):
            yield from outcomes
