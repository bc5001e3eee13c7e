"""Check a TIFF (TIFF 6.0, and BigTIFF): its directory, its compression, its strips and tiles.

Only the first image of a file is decoded. Pillow and libtiff support more kinds of compression than
photographs need; the others are refused.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import TiffImagePlugin

from training.data.formats.encoded import Encoded
from training.data.image_errors import ImageError, damaged_header, too_costly

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_TAGS = 500
MAX_PARTS = 20_000
"""Maximum number of strips or tiles."""
MAX_VALUES = 200_000
"""Maximum number of numbers in one tag. A table of colours has 196,608."""
MAX_SAMPLES = 8
JPEG, YCBCR = 7, 6
COMPRESSIONS = {1, 2, 3, 4, 5, JPEG, 8, 32773, 32946}
"""None, CCITT, LZW, JPEG, Deflate and PackBits."""

_COSTLY_JPEG = re.compile(
    rb"\xff[\xc2\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0[\x0b\x0e\x11\x14]\x08", re.DOTALL
)
"""The header of a frame in a JPEG that is not baseline, with 8 bits and 1 to 4 components."""
_TYPE_BYTES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2},
    **{9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8},
}
_FORMS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_BYTE_TYPES = {1, 2, 6, 7}
_PART_TAGS = {273, 279, 324, 325}


@dataclass(frozen=True)
class _Tag:
    count: int
    first: int
    """The first value, or 0 if the values are not whole numbers."""
    largest: int


def check(data: bytes) -> Encoded:
    """Check the first image of a TIFF."""
    tags = _tags(data)

    def value(number: int, default: int) -> int:
        return tags[number].first if number in tags else default

    width, height, compression = value(256, 0), value(257, 0), value(259, 1)
    depth = tags[258].largest if 258 in tags else 1
    samples = max(value(277, 1), 3 if compression == JPEG else 1)
    _check_compression(data, compression)
    if samples > MAX_SAMPLES or depth > 64:
        raise ImageError("unsupported", f"the TIFF has {samples} samples of {depth} bits per pixel")
    num_parts = max((tags[number].count for number in (273, 324) if number in tags), default=0)
    if num_parts > MAX_PARTS:
        raise too_costly(f"the TIFF has more than {MAX_PARTS:,} strips or tiles")
    part_width = value(322, width) if 324 in tags else width
    part_height = value(323, height) if 324 in tags else min(height, value(278, height))
    if not (width and height and part_width and part_height):
        raise damaged_header()
    part_bytes = part_width * part_height * -(-samples * depth // 8)
    working_bytes = 0 if compression == 1 else part_bytes
    if compression != 1 and value(262, 0) == YCBCR:  # libtiff makes four bytes per pixel of it
        working_bytes = max(part_bytes, 4 * part_width * part_height)
    pixel_bytes = min(4, -(-depth // 8)) if samples == 1 else 4
    is_turned = 2 <= value(274, 1) <= 8  # Pillow makes a copy that is upright
    return Encoded(
        TiffImagePlugin.TiffImageFile,
        [data],
        width,
        height,
        pixel_bytes=2 * pixel_bytes if is_turned else pixel_bytes,
        unpacked_bytes=-(-width // part_width) * -(-height // part_height) * part_bytes,
        working_bytes=working_bytes,
        orientation=1,
    )


def _check_compression(data: bytes, compression: int) -> None:
    """Raise ImageError for a kind of compression that is not supported."""
    if compression not in COMPRESSIONS:
        raise ImageError(
            "unsupported",
            f"the TIFF has the compression {compression}; "
            "save it with LZW or Deflate, or without compression",
        )
    if compression == JPEG and _COSTLY_JPEG.search(data):
        raise ImageError(
            "unsupported", "the TIFF contains progressive JPEG; save it with LZW or Deflate"
        )


def _tags(data: bytes) -> Mapping[int, _Tag]:
    """The tags of the first directory; raises ImageError."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    offset, head, entry = ("Q", "Q", "HHQ") if is_big else ("I", "H", "HHI")
    (start,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    (num_tags,) = struct.unpack_from(order + head, data, start)
    if num_tags > MAX_TAGS:
        raise too_costly(f"the TIFF has more than {MAX_TAGS:,} tags")
    inline_bytes, entry_bytes = (8, 20) if is_big else (4, 12)
    position, total_bytes = start + struct.calcsize(order + head), 0
    tags: dict[int, _Tag] = {}
    for _ in range(num_tags):
        number, kind, count = struct.unpack_from(order + entry, data, position)
        num_bytes = count * _TYPE_BYTES.get(kind, 0)
        at = position + entry_bytes - inline_bytes
        if num_bytes > inline_bytes:
            (at,) = struct.unpack_from(order + offset, data, at)
            total_bytes += num_bytes
        if total_bytes > len(data):
            raise too_costly("the tags of the TIFF have more bytes than the file")
        if count > MAX_VALUES and kind not in _BYTE_TYPES:
            raise too_costly(f"a tag of the TIFF has more than {MAX_VALUES:,} values")
        values: tuple[int, ...] = ()
        if kind in _FORMS and number not in _PART_TAGS:
            values = struct.unpack_from(f"{order}{min(count, 16)}{_FORMS[kind]}", data, at)
        tags.setdefault(number, _Tag(count, values[0] if values else 0, max(values, default=0)))
        position += entry_bytes
    return tags
