"""Decode once: canvases in a memory-mapped uint8 array, so that no epoch waits for a JPEG."""

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from training.datasets import Example
from training.images import ImageError, Pixels, canvas_px, open_picture, to_canvas

SKIPPED_FILE = "skipped.csv"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Skipped:
    """A file that is no usable image, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Canvases:
    """Decoded images (N, canvas, canvas, 3) uint8, the examples they came from, and the ones that could not be read."""

    pixels: Pixels
    examples: list[Example]
    skipped: list[Skipped]


def decode_canvases(examples: Iterable[Example], size: int, file: Path, *, threads: int, done: Callable[[int], None]) -> Canvases:
    """Decodes every example for squares of `size` into `file`, in order; `done(n)` is called as images are finished.

    Memory does not grow with the number of images: the array lives in the file, and few pictures are in flight.
    """
    examples = list(examples)
    side = canvas_px(size)
    kept: list[Example] = []
    skipped: list[Skipped] = []

    def decode(example: Example) -> Pixels | ImageError:
        try:
            return to_canvas(open_picture(example.source, size=size), size)
        except ImageError as error:
            return error

    with file.open("wb") as out, ThreadPoolExecutor(threads) as pool:
        for example, canvas in zip(examples, map_ahead(pool, decode, examples, ahead=4 * threads), strict=True):
            if isinstance(canvas, ImageError):
                skipped.append(Skipped(example.path, str(canvas)))
            else:
                kept.append(example)
                out.write(canvas.tobytes())
            done(1)
    shape = (len(kept), side, side, 3)
    pixels = np.memmap(file, np.uint8, "r", shape=shape) if kept else np.empty(shape, np.uint8)
    return Canvases(pixels, kept, skipped)


def map_ahead(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
    """`pool.map`, in order, but with at most `ahead` results waiting: memory stays bounded however slow the consumer."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def describe_skipped(skipped: list[Skipped], file: Path) -> str:
    """How many files were left out, and where `write_skipped` lists them, for a command's summary."""
    return f"skipped files: {len(skipped):,}" + (f", listed with their reasons in {file}" if skipped else "")


def write_skipped(skipped: list[Skipped], file: Path) -> None:
    """The report of unreadable files, as CSV with `path,reason`; removed when there are none."""
    if not skipped:
        file.unlink(missing_ok=True)
        return
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "reason"))
        writer.writerows((item.path, item.reason) for item in skipped)
