"""Decode once: canvases in a memory-mapped uint8 array, so that no epoch waits for a JPEG.

train-128px.u8      the canvases one after the other, (N, canvas, canvas, 3)
train-128px.json    of which images they are, how many have been read, which could not be
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from training.data.examples import Example
from training.data.images import (
    ImageError,
    Pixels,
    Source,
    TarMember,
    canvas_px,
    open_picture,
    read_bytes,
    to_canvas,
)
from training.data.skipped import Skipped
from training.errors import UserError
from training.files import write_atomically
from training.parallel import map_ahead
from training.progress import console

COMMIT_INTERVAL = 1000
"""Images between two commits: what an interruption may cost."""


@dataclass(frozen=True)
class Canvases:
    """Decoded images (N, canvas, canvas, 3) uint8, the examples they came from, and the ones that could not be read."""

    pixels: Pixels
    examples: list[Example]
    skipped: list[Skipped]


class CacheError(UserError):
    """A cache of canvases that cannot be written, or that belongs to other data."""


@dataclass
class _Progress:
    """What the file beside the canvases says: of which images they are, and how many of these have been read."""

    data: str
    digest: str
    """Of every image's path, size and time of change (in a tar file its place too), or its content where it is no file."""
    num_read: int = 0
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    """The place of each image that is no usable one, and why, for programs and for people."""


def cached_canvases(
    data: str,
    examples: Sequence[Example],
    size: int,
    file: Path,
    *,
    threads: int,
    done: Callable[[int], None] = lambda _: None,
) -> Canvases:
    """The canvases of every example for squares of `size`, in order, memory-mapped from `file`; `done(n)` counts images.

    What `file` already holds is not decoded again; where an image was added, removed or changed since, all are. Work that was
    interrupted goes on where it was. Raises CacheError where `file` is of other data than `data` names, or the disk is full.
    Memory does not grow with the number of images: few pictures are in flight.
    """
    side = canvas_px(size)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # a second process waits here, and then finds the work done
        progress = _progress_of(data, examples, file, side)
        done(progress.num_read)
        if progress.num_read < len(examples):
            _decode_rest(examples, progress, size, file, threads, done)
    left_out = {place for place, _, _ in progress.skipped}
    kept = [example for place, example in enumerate(examples) if place not in left_out]
    shape = (len(kept), side, side, 3)
    pixels = np.memmap(file, np.uint8, "r", shape=shape) if kept else np.empty(shape, np.uint8)
    return Canvases(
        pixels, kept, [Skipped(examples[place].path, text) for place, _, text in progress.skipped]
    )


def _progress_of(data: str, examples: Sequence[Example], file: Path, side: int) -> _Progress:
    """What is there already; nothing, where the images have changed since or the file is cut off."""
    fresh = _Progress(data, _digest(examples))
    try:
        content = json.loads(file.with_suffix(".json").read_text("utf-8"))
        found = _Progress(
            **{
                **content,
                "skipped": [(place, reason, text) for place, reason, text in content["skipped"]],
            }
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # there is none, or it is damaged: decoding again mends it
        return fresh
    if found.data != data:
        raise CacheError(
            f"{file} holds the images of {found.data}, not of {data}; pass another --cache, or remove that file"
        )
    if found.digest != fresh.digest:
        if found.num_read:
            console.print(
                f"The images of {data} have changed since {file} was made: decoding them again"
            )
        return fresh
    if any(
        reason == "unreadable" and _is_readable(examples[place])
        for place, reason, _ in found.skipped
    ):
        console.print(
            f"Files of {data} that could not be read when {file} was made can be read now: decoding all again"
        )
        return fresh
    is_whole = (
        file.is_file()
        and file.stat().st_size >= (found.num_read - len(found.skipped)) * side * side * 3
    )
    return found if is_whole else fresh


def _decode_rest(
    examples: Sequence[Example],
    progress: _Progress,
    size: int,
    file: Path,
    threads: int,
    done: Callable[[int], None],
) -> None:
    canvas_bytes = canvas_px(size) ** 2 * 3
    start_bytes = (progress.num_read - len(progress.skipped)) * canvas_bytes
    needed = (len(examples) - progress.num_read) * canvas_bytes
    if (free := shutil.disk_usage(file.parent).free) < needed:
        raise CacheError(
            f"{file} needs {needed:,} bytes more, but its disk has {free:,} free; pass a --cache on another, or make room"
        )

    def decode(example: Example) -> Pixels | ImageError:
        try:
            return to_canvas(open_picture(example.source, size=size), size)
        except ImageError as error:
            return error

    def commit(stream: IO[bytes]) -> None:
        stream.flush()
        os.fsync(stream.fileno())
        write_atomically(file.with_suffix(".json"), json.dumps(asdict(progress)).encode())

    try:
        if (
            not start_bytes
        ):  # another run may have the old file mapped, and its description must not outlive it
            file.with_suffix(".json").unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        with (
            file.open("r+b" if start_bytes else "wb") as stream,
            ThreadPoolExecutor(threads) as pool,
        ):
            stream.truncate(start_bytes)
            stream.seek(start_bytes)
            outcomes = map_ahead(pool, decode, examples[progress.num_read :], ahead=4 * threads)
            for canvas in outcomes:
                if isinstance(canvas, ImageError):
                    progress.skipped.append((progress.num_read, canvas.reason, str(canvas)))
                else:
                    stream.write(canvas.tobytes())
                progress.num_read += 1
                done(1)
                if progress.num_read % COMMIT_INTERVAL == 0:
                    commit(stream)
            commit(stream)
    except OSError as error:
        raise CacheError(
            f"{file} cannot be written ({error.strerror}); pass a --cache on another disk, or make room"
        ) from error


def _is_readable(example: Example) -> bool:
    try:
        return isinstance(example.source, bytes) or bool(read_bytes(example.source))
    except ImageError:
        return False


def _digest(examples: Iterable[Example]) -> str:
    digest = hashlib.sha256()
    shards: dict[Path, str] = {}
    for example in examples:
        digest.update(f"{example.path}\0{_version(example.source, shards)}\0".encode())
    return digest.hexdigest()


def _version(source: Source, shards: dict[Path, str]) -> str:
    """`shards` remembers the tar files seen: each holds thousands of images."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, TarMember):
        if source.file not in shards:
            shards[source.file] = _version(source.file, shards)
        return f"{source.offset} {source.num_bytes} {shards[source.file]}"
    try:
        status = source.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    except (OSError, ValueError):  # it will be skipped, with the reason
        return "absent"
