"""Check a JPEG (ITU-T T.81): its tables, its kind of coding, its scans.

A progressive JPEG stores the picture in several scans. Each scan visits every block, so a small
file with hundreds of scans takes minutes.
"""

import re
import struct
from collections.abc import Iterator

from PIL import JpegImagePlugin

from training.data.formats.encoded import Encoded
from training.data.formats.metadata import orientation
from training.data.image_errors import ImageError, damaged_header, too_costly

MAGIC = b"\xff\xd8\xff"
MAX_SEGMENTS = 2000
"""Maximum number of segments before the first scan, and between the scans. An ordinary file has
fewer than 100. Metadata of 64 MB has 1,000."""
MAX_TABLE_BYTES = 65_536
"""Maximum size of all tables before the first scan. An ordinary file has about 1,000 bytes."""
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 700_000_000
"""Maximum number of scans times pixels. Ordinary programs write up to 12 scans."""
MAX_EXIF_BYTES = 1_000_000

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_DHT, _EOI, _SOS, _DQT, _DRI, _APP0, _APP1, _APP14 = (
    *(0xC4, 0xD9, 0xDA, 0xDB),
    *(0xDD, 0xE0, 0xE1, 0xEE),
)
_TABLES = {_DHT, _DQT, _DRI}
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
"""A marker with a segment, or the end of the image. TEM, SOI and restart markers have none."""
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def check(data: bytes) -> Encoded:
    """Check a JPEG. Pillow sees the tables and the scans, but not the metadata."""
    parts, exif, xmp, frame, num_table_bytes = [data[:2]], b"", None, None, 0
    kept: set[int] = set()
    for marker, start, end in _segments(data, 2):
        if marker in _FRAMES:
            if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
                raise ImageError(
                    "unsupported",
                    "this JPEG has arithmetic or lossless coding; save it as baseline JPEG",
                )
            if frame:
                raise damaged_header()
            frame = _Frame(marker, data[start:end])
        if marker in _FRAMES or marker in _TABLES:
            num_table_bytes += end - start
            if num_table_bytes > MAX_TABLE_BYTES:
                raise too_costly(f"the JPEG has more than {MAX_TABLE_BYTES:,} bytes of tables")
            parts.append(data[start:end])
        elif marker in (_APP0, _APP14):  # they say how the colours are stored
            if marker not in kept:
                parts.append(data[start:end])
            kept.add(marker)
        elif marker == _APP1 and data[start + 4 : start + 10] == b"Exif\0\0":
            exif += data[start + 10 : end] if len(exif) < MAX_EXIF_BYTES else b""
        elif marker == _APP1 and data.startswith(_XMP, start + 4):
            xmp = data[start + 4 + len(_XMP) : end]
        elif marker == _SOS:
            if frame is None:
                raise damaged_header()
            num_components = data[start + 4]
            return Encoded(
                JpegImagePlugin.JpegImageFile,
                [b"".join(parts), memoryview(data)[start:]],
                frame.width,
                frame.height,
                pixel_bytes=1 if frame.num_components == 1 else 4,
                working_bytes=frame.check_scans(data, start, num_components),
                orientation=orientation(exif, xmp),
                can_shrink=True,
            )
    raise damaged_header()


class _Frame:
    """The frame header (T.81, B.2.2)."""

    def __init__(self, marker: int, segment: bytes):
        precision, self.height, self.width, self.num_components = struct.unpack_from(
            ">BHHB", segment, 4
        )
        if precision != 8:
            raise ImageError(
                "unsupported", f"the JPEG has {precision} bits per sample; save it with 8 bits"
            )
        samplings = [segment[11 + 3 * number] for number in range(self.num_components)]
        self._samplings = [(one >> 4, one & 15) for one in samplings]
        if not self._samplings or not all(1 <= n <= 4 for one in self._samplings for n in one):
            raise damaged_header()
        self._is_progressive = marker == _PROGRESSIVE

    def check_scans(self, data: bytes, start: int, num_components: int) -> int:
        """Check the number of scans. Return the size of the coefficients that libjpeg keeps.

        If all components are in the first scan of a baseline JPEG, libjpeg decodes row by row and
        refuses further scans.
        """
        if not self._is_progressive and num_components == self.num_components:
            return 0
        num_pixels = max(1, self.width * self.height)
        most = min(MAX_SCANS, max(14, MAX_SCANNED_PIXELS // num_pixels))
        # Trailing data, such as the video of a motion photo, can contain the marker of a scan by
        # chance. So the scans are counted exactly if there seem to be too many.
        if data.count(b"\xff\xda", start) > most:
            num_scans = 0
            for marker, _, _ in _segments(data, start):
                num_scans += marker == _SOS
                if num_scans > most:
                    raise too_costly(
                        f"the JPEG has more than {most} scans for {num_pixels:,} pixels"
                    )
        widest = max(one for one, _ in self._samplings)
        highest = max(one for _, one in self._samplings)
        num_blocks = sum(
            -(-self.width * across // (8 * widest)) * -(-self.height * down // (8 * highest))
            for across, down in self._samplings
        )
        return 128 * int(num_blocks)


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """The marker, the start and the end of each segment, up to the end of the image.

    Bytes between segments are skipped, such as the coded pixels. Raises ImageError if a segment is
    cut off or there are too many of them.
    """
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, position)
        if not match or match[1][0] == _EOI:
            return
        start = match.start()
        (length,) = struct.unpack_from(">H", data, start + 2)
        position = start + 2 + length
        if length < 2 or position > len(data):
            raise damaged_header()
        yield match[1][0], start, position
    raise too_costly(f"the JPEG has more than {MAX_SEGMENTS:,} segments")
