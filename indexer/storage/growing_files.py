"""Files that only ever grow, as their writer sees them."""

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from indexer.array_types import Floats
from indexer.storage.codes import Encoder
from indexer.storage.manifest import Extent, Manifest
from indexer.storage.records import CODES, GROWING_FILES, file_name

BLOCK_ROWS = 256
CHUNK_BYTES = 16 * 1024 * 1024


class GrowingFile:
    """A file that is appended to, with the CRC-32 of all of it. An OSError (a full disk) names it."""

    def __init__(self, directory: Path, extent: Extent):
        self.num_bytes, self._crc32, self._path = (
            extent.num_bytes,
            extent.crc32,
            directory / extent.file,
        )
        self._out = self._path.open("ab")
        self._out.truncate(extent.num_bytes)  # what an interrupted writer left

    def append(self, content: bytes) -> None:
        with self._naming():
            self._out.write(content)
        self._crc32 = zlib.crc32(content, self._crc32)
        self.num_bytes += len(content)

    def sync(self) -> Extent:
        """Makes what was appended last, and gives the whole file's extent."""
        with self._naming():
            self._out.flush()
            os.fsync(self._out.fileno())
        return Extent(self._path.name, self.num_bytes, self._crc32)

    def close(self) -> None:
        with suppress(
            OSError
        ):  # what is left in the buffer belongs to no commit, and there may be no room for it
            self._out.close()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


class CodesFile(GrowingFile):
    """The codes, which are made of features, a block at a time."""

    def __init__(self, directory: Path, extent: Extent, encoder: Encoder):
        super().__init__(directory, extent)
        self._encoder, self._waiting = encoder, list[Floats]()

    def encode(self, features: Floats) -> None:
        """Appends the codes of features (B, 4096), by the next `sync` at the latest."""
        self._waiting.extend(np.array(features, np.float32))
        if len(self._waiting) >= BLOCK_ROWS:
            self._write_waiting()

    def sync(self) -> Extent:
        self._write_waiting()
        return super().sync()

    def _write_waiting(self) -> None:
        if self._waiting:
            self.append(self._encoder.encode(np.stack(self._waiting)).tobytes())
            self._waiting.clear()


def new_files(generation: int) -> dict[str, Extent]:
    """The growing files that every index has, by kind, before a generation's first row."""
    return {kind: Extent(file_name(kind, generation)) for kind in GROWING_FILES if kind != CODES}


def open_files(directory: Path, extents: Mapping[str, Extent]) -> dict[str, GrowingFile]:
    """Growing files, by kind, to go on after these extents; all but the codes, which take an encoder."""
    return {
        kind: GrowingFile(directory, extent) for kind, extent in extents.items() if kind != CODES
    }


def read_extent(directory: Path, extent: Extent) -> Extent:
    """What there is of an extent, which is the same where no byte has changed; raises FileNotFoundError."""
    crc, num_read = 0, 0
    with (directory / extent.file).open("rb") as stream:
        while chunk := stream.read(min(CHUNK_BYTES, extent.num_bytes - num_read)):
            crc = zlib.crc32(chunk, crc)
            num_read += len(chunk)
    return Extent(extent.file, num_read, crc)


def cut_off(directory: Path, manifest: Manifest) -> None:
    """Gives back the room of what lies beyond a commit's growing files."""
    for extent in manifest.files.values():
        file = directory / extent.file
        with suppress(FileNotFoundError):  # an index whose codes are lost can still be changed
            if file.stat().st_size > extent.num_bytes:
                os.truncate(file, extent.num_bytes)
