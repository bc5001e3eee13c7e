"""Check a PNM (netpbm's PBM, PGM and PPM): only binary pixels are accepted.

Pillow decodes plain PNM, which stores numbers as text, in Python. The same holds for binary PNM
with an unusual maximum value, so such pixels are scaled to 8 bits here.
"""

import numpy as np
from PIL import PpmImagePlugin

from training.data.formats.encoded import Encoded
from training.data.image_errors import ImageError, damaged_header, too_costly

MAX_HEADER_BYTES = 1024
MAX_VALUE = 65_535
BLOCK_SAMPLES = 1_000_000

_CHANNELS = {b"P4": 1, b"P5": 1, b"P6": 3}
_WHITESPACE = b" \t\n\v\f\r"


def check(data: bytes) -> Encoded:
    """Check a PNM."""
    magic = data[:2]
    if magic not in _CHANNELS:
        raise ImageError(
            "unsupported",
            f"this is a PNM of the kind {magic.decode('latin-1')}; "
            "save it as binary PNM (P4, P5 or P6) with 8 bits, or as PNG",
        )
    is_bitmap = magic == b"P4"
    numbers, start = _numbers(data, 2 if is_bitmap else 3)
    width, height, most = *numbers[:2], 255 if is_bitmap else numbers[2]
    if not 0 < most <= MAX_VALUE:
        raise damaged_header()
    parts: list[bytes | memoryview] = [data]
    is_raw = is_bitmap or most == 255 or (most == MAX_VALUE and magic == b"P5")
    num_samples = width * height * _CHANNELS[magic]
    if not is_raw:
        if len(data) - start < num_samples * (1 + (most > 255)):
            raise ImageError("truncated", "the image is cut off; use a complete copy of the file")
        header = b"%s\n%d %d\n255\n" % (magic, width, height)
        parts = [header, memoryview(_scaled(data, start, num_samples, most))]
    return Encoded(
        PpmImagePlugin.PpmImageFile,
        parts,
        width,
        height,
        pixel_bytes=4 if magic == b"P6" or (is_raw and most > 255) else 1,
        working_bytes=0 if is_raw else num_samples,
        orientation=1,
    )


def _numbers(data: bytes, count: int) -> tuple[list[int], int]:
    """The first numbers of the header, and the position of the first pixel."""
    numbers: list[int] = []
    position = 2
    while len(numbers) < count:
        position = _skip_space(data, position)
        end = position
        while data[end : end + 1].isdigit() and end - position < 10:
            end += 1
        if end == position:
            raise damaged_header()
        numbers.append(int(data[position:end]))
        position = end
    if data[position : position + 1] not in [bytes([one]) for one in _WHITESPACE]:
        raise damaged_header()
    return numbers, position + 1


def _skip_space(data: bytes, position: int) -> int:
    """The position after whitespace and comments. A comment ends with its line."""
    while position < MAX_HEADER_BYTES:
        character = data[position]
        if character == ord("#"):
            ends = [data.find(end, position, MAX_HEADER_BYTES) for end in (b"\n", b"\r")]
            position = min((end for end in ends if end >= 0), default=MAX_HEADER_BYTES)
        elif character not in _WHITESPACE:
            return position
        position += 1
    raise too_costly(f"the header of the PNM has more than {MAX_HEADER_BYTES:,} bytes")


def _scaled(data: bytes, start: int, count: int, most: int) -> bytearray:
    """The samples from `start`, scaled from 0..`most` to 0..255 in blocks."""
    kind = np.dtype(np.uint8 if most < 256 else ">u2")
    samples = np.frombuffer(data, kind, count, start)
    scaled = bytearray(count)
    out = np.frombuffer(scaled, np.uint8)
    for first in range(0, count, BLOCK_SAMPLES):
        block = np.minimum(samples[first : first + BLOCK_SAMPLES], most).astype(np.uint32)
        out[first : first + BLOCK_SAMPLES] = (block * 255 + most // 2) // most
    return scaled
