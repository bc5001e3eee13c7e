"""Check a GIF (GIF89a specification): what lies before its first frame, and the frame's size.

Later frames are not read, so their number does not matter.
"""

import struct

from PIL import GifImagePlugin

from training.data.formats.encoded import Encoded
from training.data.image_errors import damaged_header, too_costly

MAGICS = (b"GIF87a", b"GIF89a")
MAX_BLOCKS = 10_000
"""Maximum number of blocks of comments and other extensions before the first frame. A block has at
most 255 bytes."""

_EXTENSION, _FRAME = 0x21, 0x2C


def check(data: bytes) -> Encoded:
    """Check a GIF."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position, num_blocks = 13 + _table_bytes(flags), 0
    while data[position] != _FRAME:
        if data[position] == _EXTENSION:
            position += 2
            while num_bytes := data[position]:
                position += 1 + num_bytes
                num_blocks += 1
                _check_count(num_blocks)
        elif data[position] == 0x3B:  # the end of the file
            raise damaged_header()
        position += 1
        num_blocks += 1
        _check_count(num_blocks)
    left, top, frame_width, frame_height = struct.unpack_from("<4H", data, position + 1)
    # As Pillow does, the picture grows if the frame lies outside it.
    return Encoded(
        GifImagePlugin.GifImageFile,
        [data],
        max(width, left + frame_width),
        max(height, top + frame_height),
        pixel_bytes=1,
        working_bytes=frame_width * frame_height,
        orientation=1,
    )


def _table_bytes(flags: int) -> int:
    """The size of the table of colours that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_count(num_blocks: int) -> None:
    if num_blocks > MAX_BLOCKS:
        raise too_costly(f"the GIF has more than {MAX_BLOCKS:,} blocks before its first frame")
