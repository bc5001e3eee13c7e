"""Check a BMP: only uncompressed pixels are accepted.

Pillow decodes run lengths (RLE) in Python. A file of 1 KB can then take many seconds.
"""

import struct

from PIL import BmpImagePlugin

from training.data.formats.encoded import Encoded
from training.data.image_errors import ImageError

MAGIC = b"BM"

_OLDEST_HEADER_BYTES = 12
_RAW, _BIT_FIELDS = 0, 3


def check(data: bytes) -> Encoded:
    """Check a BMP."""
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == _OLDEST_HEADER_BYTES:
        width, height, _, depth = struct.unpack_from("<4H", data, 18)
        compression = _RAW
    else:
        width, height, _, depth, compression = struct.unpack_from("<IiHHI", data, 18)
    if compression not in (_RAW, _BIT_FIELDS):
        raise ImageError(
            "unsupported",
            f"the BMP is compressed (method {compression}); save it without compression, or as PNG",
        )
    return Encoded(
        BmpImagePlugin.BmpImageFile,
        [data],
        width,
        abs(height),
        pixel_bytes=1 if depth <= 8 else 4,
        orientation=1,
    )
