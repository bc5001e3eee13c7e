"""Images into an index, many at a time: find, decode, embed, write; what is already there and unchanged is left alone.

Each worker takes a few images the whole way from the file to the feature, so that every core is busy and none waits for another;
the writer takes what they made in order. Commits every few seconds: an interrupted build goes on where it was.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.array_types import Rows
from indexer.embedder import Embedder
from indexer.search.kinds import KindChoice
from indexer.search.update_structures import update_search
from indexer.storage.index import MODEL_FOLDER, Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.records import damaged_parts
from indexer.storage.stamps import Stamps, read_stamps, renew_stamps
from indexer.storage.writer import IndexWriter, NewItem
from training.data.datasets import Part, open_dataset
from training.data.examples import DataError, Example, storable
from training.data.images import (
    ImageError,
    Pixels,
    open_picture,
    read_bytes,
    to_square,
    to_thumbnail,
)
from training.data.shards import are_shards
from training.data.skipped import SKIPPED_FILE, Skipped, write_skipped
from training.devices import Device
from training.errors import UserError
from training.interruption import StopRequest, stop_on_signal
from training.parallel import map_ahead, num_cores
from training.progress import Bar, console

BATCH_SIZE = {"cpu": 32, "gpu": 128}
COMMIT_INTERVAL_S = 10.0
RACY_S = 2.0
"""A file that changed so shortly before it was read may change again without its times telling."""


@dataclass
class Report:
    """What a build or an addition did, in numbers of images; `num_items` is what the index holds now."""

    num_items: int = 0
    num_added: int = 0
    num_changed: int = 0
    num_unchanged: int = 0
    num_removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class _Unchanged:
    """An image that the index has already; `id` and `stamp` are its item's and its file's, where it took the file's bytes to tell."""

    id: int | None = None
    stamp: int = 0


@dataclass(frozen=True)
class _Decoded:
    """An image ready for the network."""

    example: Example
    sha256: str
    stamp: int
    square: Pixels
    thumbnail: bytes
    width: int
    height: int

    def item(self, feature: np.ndarray) -> NewItem:
        return NewItem(
            path=self.example.path,
            label=self.example.label,
            sha256=self.sha256,
            width=self.width,
            height=self.height,
            thumbnail=self.thumbnail,
            feature=feature,
            stamp=self.stamp,
        )


_Outcome = _Unchanged | Skipped | NewItem


def build(
    data: str,
    model_directory: Path,
    out: Path,
    *,
    part: Part = "all",
    device: Device = "auto",
    kind: KindChoice | None = None,
    memory_bytes: int | None = None,
) -> Report:
    """Makes the index of DATA at `out`, or brings the one there up to date: adds, embeds again what changed, removes what is gone.

    Unreadable files are skipped and listed in skipped.csv; an item whose file can no longer be read stays. Raises UserError.
    """
    examples = open_dataset(data).part(part)
    if not examples:
        raise DataError(
            f"{data} has no images; pass a folder of images, tar shards, a CSV (path,label), or `digits`"
        )
    if twice := _first_repeated([example.path for example in examples]):
        raise DataError(
            f"{twice} is the path of two images of {data}, as far as it can be written; rename one of them"
        )
    with IndexWriter.open(out, model_directory) as writer:
        index = writer.index
        gone = index.ids[
            ~np.isin(
                index.rows,
                [row for example in examples for row in index.rows_of_path(example.path)],
            )
        ]
        if len(index.ids) and len(gone) == len(index.ids):
            raise IndexDirectoryError(
                f"none of the {len(index.ids):,} images in {out} are in {data}, which must be another collection; pass another --out, "
                f"or add them: lookalike index add {out} {data}"
            )
        report = _write(
            examples, Embedder(model_directory, device=device, num_threads=1), writer, is_build=True
        )
        write_skipped(report.skipped, out / SKIPPED_FILE)
        if not len(index.ids) and not report.num_added:
            first = report.skipped[0]
            raise DataError(
                f"{data} has no readable image: {first.path}: {first.reason}; all are listed in {out / SKIPPED_FILE}"
            )
        writer.remove(gone.tolist())
        update_search(writer, kind=kind, memory_bytes=memory_bytes, device=device)
        writer.commit(is_complete=True)
        report.num_removed, report.num_items = len(gone), writer.manifest.num_items
    return report


def add(
    directory: Path,
    data: Sequence[str],
    *,
    prefix: str = "",
    model_directory: Path | None = None,
    device: Device = "auto",
) -> Report:
    """Adds images, at a cost that follows their number: those of folders, tar shards and CSVs, and single files. Raises UserError.

    An image whose bytes are in the index already, under whatever path, is left out; one with the path of another, but other bytes,
    takes its place. `prefix` goes before every path. Without `model_directory` the index's own copy of the model embeds, on the CPU.
    """
    if device == "gpu" and model_directory is None:
        raise UserError(
            "the index's own copy of the model embeds on the CPU only; pass the --model directory too, or --device cpu"
        )
    examples = [example for name in data for example in _examples(name, prefix)]
    if twice := _first_repeated([example.path for example in examples]):
        raise DataError(
            f"{twice} is the path of two of these images; add one after the other, each with its own --prefix"
        )
    with IndexWriter.open(directory) as writer:
        embedder = Embedder(
            model_directory or directory / MODEL_FOLDER,
            device=device if model_directory else "cpu",
            num_threads=1,
        )
        writer.check_model(embedder.card.id, model_directory or directory / MODEL_FOLDER)
        report = _write(examples, embedder, writer, is_build=False)
        update_search(writer, device=device)
        writer.commit()
        if report.skipped:
            write_skipped(report.skipped, directory / SKIPPED_FILE)
        report.num_items = writer.manifest.num_items
    return report


def remove(
    directory: Path,
    *,
    ids: Sequence[int] = (),
    paths: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> int:
    """Removes items, all of them or, where one is unknown, none; their number. Raises IndexDirectoryError."""
    with IndexWriter.open(directory) as writer:
        index = writer.index
        named: list[tuple[str, int | str, Rows]] = [
            ("id", id, index.rows_of_ids([id])) for id in ids
        ]
        named += [("path", path, index.rows_of_path(storable(path))) for path in paths]
        named += [("label", label, index.rows_of_label(storable(label))) for label in labels]
        for name, value, rows in named:
            if not len(rows):
                raise IndexDirectoryError(
                    f"no item of {directory} has the {name} {value}, so nothing was removed; `lookalike index stats` lists the labels, "
                    "`lookalike index export` all items"
                )
        found = {int(id) for _, _, rows in named for id in index.records["id"][rows]}
        writer.remove(sorted(found))
        writer.commit()
    return len(found)


def _examples(data: str, prefix: str) -> Iterator[Example]:
    path = Path(data)
    is_image = path.is_file() and path.suffix.lower() != ".csv" and not are_shards(data)
    examples = (
        [Example(storable(path.name), None, path)] if is_image else open_dataset(data).part("all")
    )
    if not examples:
        raise DataError(
            f"{data} has no images; pass folders of images, image files, tar shards, or a CSV (path,label)"
        )
    return (
        Example(storable(prefix) + example.path, example.label, example.source)
        for example in examples
    )


def _first_repeated(paths: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            return path
        seen.add(path)
    return None


def _write(
    examples: Sequence[Example], embedder: Embedder, writer: IndexWriter, *, is_build: bool
) -> Report:
    """Embeds what is new and writes it, with a commit every few seconds; the last is the caller's. Ctrl-C commits what is done, and ends.

    In a build an image's name is its path, so it may lie under two; what is added is known by its bytes.
    """
    report, index, added, touched = Report(), writer.index, set[str](), dict[int, int]()
    committed_at, half_done = time.monotonic(), False if is_build else None
    with stop_on_signal() as stop, Bar("Indexing", len(examples)) as bar:
        for outcome in _outcomes(examples, embedder, index, stop, is_build=is_build):
            match outcome:
                case Skipped():
                    report.skipped.append(outcome)
                case NewItem() if (
                    len(rows := index.rows_of_path(outcome.path)) or outcome.sha256 not in added
                ):
                    earlier = index.records["id"][rows].tolist()
                    writer.remove(earlier)
                    writer.add(outcome)
                    if not is_build:
                        added.add(outcome.sha256)
                    report.num_changed += len(earlier)
                    report.num_added += not earlier
                case _Unchanged(id=int(id), stamp=stamp) if stamp:
                    touched[id] = stamp
                    report.num_unchanged += 1
                case _:
                    report.num_unchanged += 1
            bar.advance(1, f"{len(report.skipped):,} skipped" if report.skipped else None)
            if time.monotonic() - committed_at > COMMIT_INTERVAL_S:
                writer.commit(is_complete=half_done)
                committed_at = time.monotonic()
        is_stopped = stop.is_made and bar.num_done < len(examples)
    renew_stamps(writer, touched)
    if is_stopped:
        writer.commit(is_complete=half_done)
        if report.skipped:
            write_skipped(report.skipped, writer.directory / SKIPPED_FILE)
        console.print(
            f"Interrupted: {report.num_added + report.num_changed:,} images are in; run the same command again to go on"
        )
        raise KeyboardInterrupt
    return report


def _outcomes(
    examples: Sequence[Example],
    embedder: Embedder,
    index: Index,
    stop: StopRequest,
    *,
    is_build: bool,
) -> Iterator[_Outcome]:
    """What becomes of each example, in order, until a stop is asked for."""
    one_at_a_time = threading.Lock() if embedder.device == "gpu" else nullcontext()
    stamps = read_stamps(index)

    def work(chunk: Sequence[Example]) -> list[_Outcome]:
        if stop.is_made:
            return []
        prepared = [
            _prepare(example, index, stamps, embedder.card.image_size, is_build=is_build)
            for example in chunk
        ]
        squares = [image.square for image in prepared if isinstance(image, _Decoded)]
        if not squares:
            return [outcome for outcome in prepared if not isinstance(outcome, _Decoded)]
        with one_at_a_time:
            features = iter(embedder.embed(np.stack(squares)).features)
        return [
            image.item(next(features)) if isinstance(image, _Decoded) else image
            for image in prepared
        ]

    num_workers, size = num_cores(), BATCH_SIZE[embedder.device]
    chunks = (examples[start : start + size] for start in range(0, len(examples), size))
    with ThreadPoolExecutor(num_workers, thread_name_prefix="embed") as pool:
        for outcomes in map_ahead(pool, work, chunks, ahead=2 * num_workers):
            yield from outcomes


def _prepare(
    example: Example, index: Index, stamps: Stamps, size: int, *, is_build: bool
) -> _Decoded | _Outcome:
    """Decodes an example, unless the index knows it: the same file, its bytes under this path, or its bytes under another one."""
    stamp, own_rows = _stamp(example), index.rows_of_path(example.path)
    for row in own_rows:
        if stamp and stamp == stamps[row] and index.text(row)[1] == example.label:
            return _Unchanged()
    try:
        content = (
            example.source if isinstance(example.source, bytes) else read_bytes(example.source)
        )
        sha256 = hashlib.sha256(content).hexdigest()
        rows = index.rows_of_content(sha256)
        for row in rows:
            if index.text(row) == (example.path, example.label):
                return _Unchanged(int(index.records["id"][row]), stamp)
        if len(rows) and not len(own_rows) and not is_build:  # a copy
            return _Unchanged()
        for row in rows:
            record, parts = index.records[row], index.parts(row)
            if not damaged_parts(record, parts):
                return NewItem(
                    path=example.path,
                    label=example.label,
                    sha256=sha256,
                    width=int(record["width"]),
                    height=int(record["height"]),
                    thumbnail=parts.thumbnail,
                    feature=index.features[row],
                    stamp=stamp,
                )
        picture = open_picture(content, size=size)
        return _Decoded(
            example,
            sha256,
            stamp,
            to_square(picture, size),
            to_thumbnail(picture),
            picture.width,
            picture.height,
        )
    except ImageError as error:
        return Skipped(example.path, str(error))


def _stamp(example: Example) -> int:
    """64 bits of a file's size, times and place on the disk, which change with its content; 0 where they may not tell."""
    if isinstance(example.source, bytes):
        return 0
    file, where = (
        (example.source, "")
        if isinstance(example.source, Path)
        else (example.source.file, str(example.source))
    )
    try:
        status = file.stat()
    except (OSError, ValueError):
        return 0
    if time.time() - max(status.st_mtime, status.st_ctime) < RACY_S:
        return 0
    told = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {where}"
    return int.from_bytes(hashlib.sha256(os.fsencode(told)).digest()[:8], "little")
