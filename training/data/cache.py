"""A cache of decoded images, so that each image is decoded only once.

The cache has three files. The file with the canvases is mapped into memory:

train-128px.u8      the canvases one after the other, (N, canvas, canvas, 3) uint8
train-128px.json    the name of the data, the number of images that have been read, and the list of
                    images that cannot be used
train-128px.lock    a lock; the process that writes the two other files holds it
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
"""After this number of images, the decoded images are flushed to the disk. An interruption loses at
most this number of decoded images."""


@dataclass(frozen=True)
class Canvases:
    """Decoded images, their examples, and the files that could not be read."""

    pixels: Pixels
    """(N, canvas, canvas, 3) uint8, memory-mapped and read-only."""
    examples: list[Example]
    """The N examples, in the order of the canvases."""
    skipped: list[Skipped]


class CacheError(UserError):
    """The cache cannot be written, or it contains the images of another data set."""


@dataclass
class _Progress:
    """The content of the cache's JSON file."""

    data: str
    digest: str
    """The hash of the examples, see `_digest`."""
    num_read: int = 0
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    """Position, reason (for programs) and explanation (for people) of each unusable image."""

    @property
    def num_canvases(self) -> int:
        return self.num_read - len(self.skipped)


def cached_canvases(
    data: str,
    examples: Sequence[Example],
    size: int,
    file: Path,
    *,
    num_threads: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Canvases:
    """The canvases of all readable examples, for squares of `size` pixels, mapped from `file`.

    Images that are already in `file` are not decoded again. So a call continues where an
    interrupted call stopped. If an image has been added, removed or changed, all images are decoded
    again. `advance(n)` is called when `n` more images are done. Raises CacheError if `file`
    contains the images of another data set than `data`, or if the disk is full. Memory does not
    grow with the number of images.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file):
        progress = _earlier_progress(data, examples, size, file)
        advance(progress.num_read)
        if progress.num_read < len(examples):
            _check_disk_space(len(examples) - progress.num_read, size, file)
            _decode_remaining(examples, progress, size, file, num_threads, advance)
    return _map_canvases(examples, progress, size, file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the cache's lock in the `with` block. Other processes wait until the lock is free."""
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _earlier_progress(data: str, examples: Sequence[Example], size: int, file: Path) -> _Progress:
    """The progress of earlier calls. If their canvases cannot be used any more, it starts at zero.

    Raises CacheError if the cache contains the images of another data set.
    """
    fresh = _Progress(data, _digest(examples))
    earlier = _load_progress(file)
    if earlier is None:
        return fresh
    if earlier.data != data:
        raise CacheError(
            f"{file} holds the images of {earlier.data}, not of {data}; "
            "pass another --cache, or remove that file"
        )
    if earlier.digest != fresh.digest:
        if earlier.num_read:
            console.print(
                f"The images of {data} have changed since {file} was made: decoding them again"
            )
        return fresh
    if any(
        reason == "unreadable" and _is_readable(examples[position])
        for position, reason, _ in earlier.skipped
    ):
        console.print(
            f"Some files of {data} could not be read when {file} was made, but can be read now: "
            "decoding all images again"
        )
        return fresh
    num_bytes = file.stat().st_size if file.is_file() else 0
    return earlier if num_bytes >= earlier.num_canvases * _canvas_bytes(size) else fresh


def _load_progress(file: Path) -> _Progress | None:
    """The content of the JSON file. None if the file is absent or damaged.

    A damaged file is not an error, because the cache can be made again.
    """
    try:
        content = json.loads(file.with_suffix(".json").read_text("utf-8"))
        skipped = [(position, reason, text) for position, reason, text in content["skipped"]]
        return _Progress(**{**content, "skipped": skipped})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_disk_space(num_images: int, size: int, file: Path) -> None:
    """Raise CacheError if the canvases of `num_images` images do not fit on the disk."""
    needed_bytes = num_images * _canvas_bytes(size)
    free_bytes = shutil.disk_usage(file.parent).free
    if free_bytes < needed_bytes:
        raise CacheError(
            f"{file} needs {needed_bytes:,} bytes more, but its disk has {free_bytes:,} free; "
            "pass a --cache on another disk, or free some disk space"
        )


def _decode_remaining(
    examples: Sequence[Example],
    progress: _Progress,
    size: int,
    file: Path,
    num_threads: int,
    advance: Callable[[int], None],
) -> None:
    """Decode the examples that have not been read, append their canvases, and update `progress`."""

    def decode(example: Example) -> Pixels | ImageError:
        try:
            return to_canvas(open_picture(example.source, size=size), size)
        except ImageError as error:
            return error

    remaining = examples[progress.num_read :]
    try:
        with (
            _open_to_append(file, progress.num_canvases * _canvas_bytes(size)) as stream,
            ThreadPoolExecutor(num_threads) as pool,
        ):
            for canvas in map_ahead(pool, decode, remaining, ahead=4 * num_threads):
                if isinstance(canvas, ImageError):
                    progress.skipped.append((progress.num_read, canvas.reason, str(canvas)))
                else:
                    stream.write(canvas.tobytes())
                progress.num_read += 1
                advance(1)
                if progress.num_read % COMMIT_INTERVAL == 0:
                    _commit(progress, stream, file)
            _commit(progress, stream, file)
    except OSError as error:
        raise CacheError(
            f"{file} cannot be written ({error.strerror}); "
            "pass a --cache on another disk, or free some disk space"
        ) from error


def _open_to_append(file: Path, num_bytes: int) -> IO[bytes]:
    """Open the file of the canvases to append to its first `num_bytes` bytes.

    All later bytes are removed.
    """
    if num_bytes == 0:
        # Another run may have mapped the old file, so its bytes stay and a new file is made. The
        # JSON file is removed first, because it must not describe canvases that do not exist.
        file.with_suffix(".json").unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        return file.open("wb")
    os.truncate(file, num_bytes)
    return file.open("ab")


def _commit(progress: _Progress, stream: IO[bytes], file: Path) -> None:
    """Flush the canvases to the disk, and then record their number in the JSON file."""
    stream.flush()
    os.fsync(stream.fileno())
    write_atomically(file.with_suffix(".json"), json.dumps(asdict(progress)).encode())


def _map_canvases(
    examples: Sequence[Example], progress: _Progress, size: int, file: Path
) -> Canvases:
    unusable = {position for position, _, _ in progress.skipped}
    kept = [example for position, example in enumerate(examples) if position not in unusable]
    skipped = [Skipped(examples[position].path, text) for position, _, text in progress.skipped]
    shape = (len(kept), canvas_px(size), canvas_px(size), 3)
    # An empty file cannot be mapped.
    pixels = np.memmap(file, np.uint8, "r", shape=shape) if kept else np.empty(shape, np.uint8)
    return Canvases(pixels, kept, skipped)


def _canvas_bytes(size: int) -> int:
    return canvas_px(size) ** 2 * 3


def _is_readable(example: Example) -> bool:
    try:
        return isinstance(example.source, bytes) or bool(read_bytes(example.source))
    except ImageError:
        return False


def _digest(examples: Iterable[Example]) -> str:
    """A hash that changes when an image is added, removed, renamed or changed."""
    digest = hashlib.sha256()
    shard_versions: dict[Path, str] = {}
    for example in examples:
        version = _version(example.source, shard_versions)
        digest.update(f"{example.path}\0{version}\0".encode())
    return digest.hexdigest()


def _version(source: Source, shard_versions: dict[Path, str]) -> str:
    """A text that changes when the source changes.

    For a file, the text contains its size and its modification time. For a tar member, the text
    contains these values of the tar file, and the offset and the size of the member. For bytes in
    memory, the text is their hash. `shard_versions` keeps the versions of tar files, because a tar
    file contains thousands of images.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, TarMember):
        if source.file not in shard_versions:
            shard_versions[source.file] = _version(source.file, shard_versions)
        return f"{source.offset} {source.num_bytes} {shard_versions[source.file]}"
    try:
        status = source.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    except (OSError, ValueError):
        return "absent"  # the decoding reports the error later
