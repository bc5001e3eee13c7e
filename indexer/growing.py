"""Files that only ever grow, as their writer sees them."""

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from indexer.manifest import Extent, Manifest
from indexer.records import GROWING_FILES, file_name


class GrowingFile:
    """A file that is appended to, with the CRC-32 of all of it. An OSError (a full disk) names it."""

    def __init__(self, file: Path, extent: Extent):
        self.num_bytes, self._crc32, self._path = extent.num_bytes, extent.crc32, file
        self._out = file.open("ab")
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
        return Extent(self.num_bytes, self._crc32)

    def close(self) -> None:
        with suppress(OSError):  # what is left in the buffer belongs to no commit, and there may be no room for it
            self._out.close()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def open_files(directory: Path, generation: int, extents: Mapping[str, Extent]) -> dict[str, GrowingFile]:
    """A generation's growing files, by kind, to go on after these extents; from nothing, where there are none."""
    return {kind: GrowingFile(directory / file_name(kind, generation), extents.get(kind, Extent())) for kind in GROWING_FILES}


def cut_off(directory: Path, manifest: Manifest) -> None:
    """Gives back the room of what lies beyond a commit's growing files."""
    for kind, extent in manifest.files.items():
        file = directory / file_name(kind, manifest.generation)
        if file.stat().st_size > extent.num_bytes:
            os.truncate(file, extent.num_bytes)
