"""Check a WebP (RFC 9649): the size of its canvas, and the number of its chunks."""

import struct

from PIL import WebPImagePlugin

from training.data.formats.encoded import Encoded
from training.data.formats.metadata import orientation
from training.data.image_errors import damaged_header, too_costly

MAX_CHUNKS = 10_000
"""Maximum number of chunks. Each frame of an animation is one chunk."""
PIXEL_BYTES = 20
"""Memory per pixel: two canvases of the decoder, Pillow's copy of one of them, and its image, with
4 bytes each. The decoder needs up to 4 bytes more."""
MAX_METADATA_BYTES = 1_000_000


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def check(data: bytes) -> Encoded:
    """Check a WebP. The decoder itself checks that each frame fits into the canvas."""
    position, num_chunks, metadata = 12, 0, {}
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind in (b"EXIF", b"XMP ") and length <= MAX_METADATA_BYTES:
            metadata[kind] = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
        num_chunks += 1
        if num_chunks > MAX_CHUNKS:
            raise too_costly(f"the WebP has more than {MAX_CHUNKS:,} chunks")
    width, height = _size(data)
    return Encoded(
        WebPImagePlugin.WebPImageFile,
        [data],
        width,
        height,
        pixel_bytes=PIXEL_BYTES,
        working_bytes=3 * len(data),  # copies of the file
        orientation=orientation(metadata.get(b"EXIF"), metadata.get(b"XMP ")),
    )


def _size(data: bytes) -> tuple[int, int]:
    """The width and the height in the header of the first chunk."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = data[24:27] + b"\0", data[27:30] + b"\0"
        return struct.unpack("<I", width)[0] + 1, struct.unpack("<I", height)[0] + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise damaged_header()
