"""Images into an index: find, decode, embed, write; what is already there and unchanged is left alone.

Commits every few seconds, so that an interrupted build goes on where it was: the next one only hashes what is already in.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from indexer.embedder import Device, Embedder
from indexer.manifest import IndexDirectoryError
from indexer.writer import IndexWriter, Known, NewItem
from training.cache import SKIPPED_FILE, Skipped, map_ahead, write_skipped
from training.datasets import DataError, Example, Part, open_dataset
from training.images import ImageError, Pixels, open_picture, read_bytes, to_square, to_thumbnail
from training.progress import Bar

T = TypeVar("T")

BATCH_SIZE = 32
COMMIT_INTERVAL_S = 10.0


@dataclass
class BuildReport:
    """What a build did, in numbers of images; `num_items` is what the index holds now."""

    num_items: int = 0
    num_added: int = 0
    num_changed: int = 0
    num_unchanged: int = 0
    num_removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class _Decoded:
    """An image that is new or whose content has changed, ready for the network."""

    example: Example
    sha256: str
    square: Pixels
    thumbnail: bytes
    width: int
    height: int


def build(data: str, model_directory: Path, out: Path, *, part: Part = "all", device: Device = "auto") -> BuildReport:
    """Makes the index of DATA at `out`, or brings the one there up to date: adds, embeds again what changed, removes what is gone.

    Unreadable files are skipped and listed in skipped.csv; an item whose file can no longer be read stays. Raises UserError.
    """
    examples = open_dataset(data).part(part)
    if not examples:
        raise DataError(f"{data} has no images; pass a folder of images, a CSV (path,label), or `digits`")
    embedder = Embedder(model_directory, device=device)
    report = BuildReport()
    with IndexWriter.open(out, model_directory) as writer:
        known = writer.known()
        gone = known.keys() - {example.path for example in examples}
        if known and len(gone) == len(known):
            raise IndexDirectoryError(
                f"none of the {len(known):,} images in {out} are in {data}, which must be another collection; pass another --out"
            )
        _add(examples, known, embedder, writer, report)
        write_skipped(report.skipped, out / SKIPPED_FILE)
        if not known and not report.num_added:
            first = report.skipped[0]
            raise DataError(f"{data} has no readable image: {first.path}: {first.reason}; all are listed in {out / SKIPPED_FILE}")
        writer.remove(known[path].id for path in gone)
        writer.commit(is_complete=True)
        report.num_removed, report.num_items = len(gone), writer.manifest.num_items
    return report


def _add(examples: Sequence[Example], known: Mapping[str, Known], embedder: Embedder, writer: IndexWriter, report: BuildReport) -> None:
    size = embedder.card.image_size
    num_threads = os.cpu_count() or 1
    committed_at = time.monotonic()
    with Bar("Indexing", len(examples)) as bar, ThreadPoolExecutor(num_threads) as pool:

        def prepared() -> Iterator[_Decoded]:
            outcomes = map_ahead(pool, lambda example: _prepare(example, known.get(example.path), size), examples, ahead=2 * BATCH_SIZE)
            for outcome in outcomes:
                if isinstance(outcome, _Decoded):
                    yield outcome
                    continue
                if isinstance(outcome, Skipped):
                    report.skipped.append(outcome)
                else:
                    report.num_unchanged += 1
                bar.advance(1)

        for batch in _batches(prepared(), BATCH_SIZE):
            features = embedder.embed(np.stack([image.square for image in batch])).features
            for image, feature in zip(batch, features, strict=True):
                if earlier := known.get(image.example.path):
                    writer.remove([earlier.id])
                    report.num_changed += 1
                else:
                    report.num_added += 1
                writer.add(
                    NewItem(
                        path=image.example.path, label=image.example.label, sha256=image.sha256, width=image.width, height=image.height,
                        thumbnail=image.thumbnail, feature=feature,
                    )
                )  # fmt: skip
            bar.advance(len(batch), f"{len(report.skipped)} skipped" if report.skipped else "")
            if time.monotonic() - committed_at > COMMIT_INTERVAL_S:
                writer.commit()
                committed_at = time.monotonic()


def _prepare(example: Example, known: Known | None, size: int) -> _Decoded | Skipped | None:
    """Decodes an example; None where the index already has these bytes with this label under this path."""
    try:
        data = read_bytes(example.source) if isinstance(example.source, Path) else example.source
        sha256 = hashlib.sha256(data).hexdigest()
        if known and (known.sha256, known.label) == (sha256, example.label):
            return None
        picture = open_picture(data, size=size)
        return _Decoded(example, sha256, to_square(picture, size), to_thumbnail(picture), picture.width, picture.height)
    except ImageError as error:
        return Skipped(example.path, str(error))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
