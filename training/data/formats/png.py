"""Check a PNG (W3C PNG specification, third edition): its chunks and the size of its pixels."""

import struct
import zlib

from PIL import PngImagePlugin

from training.data.formats.encoded import Encoded
from training.data.formats.metadata import orientation
from training.data.image_errors import damaged_header, too_costly

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_SMALL_CHUNKS = 1000
MIN_CHUNK_BYTES = 1024
"""A PNG may have MAX_SMALL_CHUNKS chunks, and one more for each MIN_CHUNK_BYTES of its size."""
MAX_METADATA_BYTES = 1_000_000
"""Maximum size of the metadata that may contain the orientation. Larger metadata is not read."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_XMP, _EXIF_TEXT = b"XML:com.adobe.xmp", b"Raw profile type exif"


def check(data: bytes) -> Encoded:
    """Check a PNG. Pillow sees only the chunks that its first frame needs."""
    view, position, num_chunks = memoryview(data), 8, 0
    parts: list[bytes | memoryview] = [view[:8]]
    exif, xmp, text_exif = None, None, None
    while position + 8 <= len(data):
        num_chunks += 1
        if num_chunks > MAX_SMALL_CHUNKS + len(data) // MIN_CHUNK_BYTES:
            raise too_costly(f"the PNG has more than {num_chunks - 1:,} chunks")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PIXEL_CHUNKS:
            parts.append(view[position:end])
        elif length <= MAX_METADATA_BYTES and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            content = data[position + 8 : end - 4]
            exif = content if kind == b"eXIf" else exif
            xmp = _text(kind, content) if content.startswith(_XMP + b"\0") else xmp
            if content.startswith(_EXIF_TEXT + b"\0"):
                text_exif = _hexadecimal(_text(kind, content))
        position = end
        if kind == b"IEND":
            break
    width, height, depth, colours = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or colours not in _CHANNELS:
        raise damaged_header()
    pixel_bytes = 1 if _CHANNELS[colours] == 1 else 4
    return Encoded(
        PngImagePlugin.PngImageFile,
        parts,
        width,
        height,
        pixel_bytes=2 if (depth, colours) == (16, 0) else pixel_bytes,
        unpacked_bytes=height * (1 + -(-width * depth * _CHANNELS[colours] // 8)),
        orientation=orientation(exif or text_exif, xmp),
    )


def _text(kind: bytes, content: bytes) -> bytes:
    """The text of a tEXt, zTXt or iTXt chunk. It is empty if it is damaged or too long."""
    _, _, rest = content.partition(b"\0")
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        rest = b"".join(rest[2:].split(b"\0", 2)[2:])  # after the language and its keyword
    if not is_compressed:
        return rest
    try:
        return zlib.decompressobj().decompress(rest, MAX_METADATA_BYTES)
    except zlib.error:
        return b""


def _hexadecimal(text: bytes) -> bytes | None:
    """The EXIF metadata in the text that ImageMagick writes: a name, a length, hexadecimal."""
    try:
        return bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
    except ValueError:
        return None
