"""Write files that only grow.

A writer appends bytes and syncs the file. Then the manifest records the extent: the number of bytes
that are committed, and their checksum.
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from indexer.storage.manifest import Extent, Manifest
from indexer.storage.records import CODES, GROWING_FILES, file_name

READ_CHUNK_BYTES = 16 * 1024 * 1024


class GrowingFile:
    """A file that is only appended to. It keeps the CRC-32 of all its bytes.

    If writing fails, for example on a full disk, the OSError names the file.
    """

    def __init__(self, directory: Path, extent: Extent):
        self.num_bytes = extent.num_bytes
        self._crc32 = extent.crc32
        self._path = directory / extent.file
        self._out = self._path.open("ab")
        self._out.truncate(extent.num_bytes)  # an interrupted writer may have left more bytes

    def append(self, content: bytes) -> None:
        """Append bytes. They are durable after the next `sync`."""
        with self._name_in_errors():
            self._out.write(content)
        self._crc32 = zlib.crc32(content, self._crc32)
        self.num_bytes += len(content)

    def sync(self) -> Extent:
        """Write the appended bytes to the disk, and return the extent of the whole file."""
        with self._name_in_errors():
            self._out.flush()
            os.fsync(self._out.fileno())
        return Extent(self._path.name, self.num_bytes, self._crc32)

    def close(self) -> None:
        """Close the file. Bytes that were not synced belong to no commit."""
        with suppress(OSError):  # unsynced bytes may not fit on the disk; nobody needs them
            self._out.close()

    @contextmanager
    def _name_in_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def new_files(generation: int) -> dict[str, Extent]:
    """The empty extents of a new generation's growing files, by kind. Codes are left out."""
    return {kind: Extent(file_name(kind, generation)) for kind in GROWING_FILES if kind != CODES}


def open_files(directory: Path, extents: Mapping[str, Extent]) -> dict[str, GrowingFile]:
    """Open growing files to append after these extents; returns the files by kind.

    The codes are left out because they need an encoder (see code_files.py).
    """
    return {
        kind: GrowingFile(directory, extent) for kind, extent in extents.items() if kind != CODES
    }


def measure_extent(directory: Path, extent: Extent) -> Extent:
    """Read the bytes of an extent, and return their present number and checksum as an extent.

    The result equals `extent` if no byte is missing and no byte has changed. Raises
    FileNotFoundError if the file is missing.
    """
    crc32, num_read = 0, 0
    with (directory / extent.file).open("rb") as stream:
        while chunk := stream.read(min(READ_CHUNK_BYTES, extent.num_bytes - num_read)):
            crc32 = zlib.crc32(chunk, crc32)
            num_read += len(chunk)
    return Extent(extent.file, num_read, crc32)


def truncate_to_commit(directory: Path, manifest: Manifest) -> None:
    """Cut off the bytes of growing files after the end of a commit, to reclaim their space."""
    for extent in manifest.files.values():
        file = directory / extent.file
        with suppress(FileNotFoundError):  # an index that lost its codes can still be changed
            if file.stat().st_size > extent.num_bytes:
                os.truncate(file, extent.num_bytes)
