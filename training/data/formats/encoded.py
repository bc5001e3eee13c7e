"""A checked image file, and what decoding it costs at most."""

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from PIL import ImageFile

MAX_COPIED_BYTES = 4_000_000
"""The parts of a file are copied into one piece up to this size. Pillow reads that faster."""
Plugin = Callable[[Any], ImageFile.ImageFile]


@dataclass(frozen=True)
class Encoded:
    """An image file that one of Pillow's plugins may decode."""

    plugin: Plugin
    """The class of Pillow for this format. No other plugin sees the file."""
    parts: Sequence[bytes | memoryview]
    """The bytes for the plugin, without the metadata that is not needed."""
    width: int
    height: int
    """The size in the header, in pixels, before the image is made upright."""
    pixel_bytes: int
    """Bytes per pixel of the image in Pillow's memory."""
    unpacked_bytes: int = 0
    """For formats that are unpacked (PNG and TIFF): the size of all pixels before they are
    converted to 8 bits."""
    working_bytes: int = 0
    """Further memory that the decoder needs, in bytes."""
    orientation: int | None = None
    """The EXIF orientation. It is 1 if the plugin makes the image upright itself, and None if only
    the plugin finds the metadata."""
    can_shrink: bool = False
    """Whether the decoder can decode at 1/2, 1/4 or 1/8 of the size (JPEG only)."""

    def open(self) -> ImageFile.ImageFile:
        """The image, before its pixels are decoded. Pillow raises almost any exception."""
        if len(self.parts) == 1:
            return self.plugin(io.BytesIO(self.parts[0]))
        is_small = sum(map(len, self.parts)) <= MAX_COPIED_BYTES
        file = io.BytesIO(b"".join(self.parts)) if is_small else PartsFile(self.parts)
        return self.plugin(file)


class PartsFile(io.RawIOBase):
    """A file that reads several parts of memory one after the other, without a copy of them."""

    def __init__(self, parts: Sequence[bytes | memoryview]):
        self._parts = [memoryview(part) for part in parts]
        self._ends = list(accumulate(map(len, self._parts)))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}
        self._position = max(0, bases[whence] + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes. It returns fewer than `size` bytes only at the end of the file."""
        left = max(0, self._num_bytes - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces = []
        while wanted:
            number = bisect_right(self._ends, self._position)
            part = self._parts[number]
            start = self._position - (self._ends[number] - len(part))
            piece = part[start : start + wanted]
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    @property
    def _num_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0
