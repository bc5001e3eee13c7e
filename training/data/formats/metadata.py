"""The orientation in EXIF and XMP metadata. Nothing else of the metadata is read.

Pillow's getexif is not used for files, because it reads every value of the metadata.
"""

import re
import struct

MAX_ENTRIES = 1000
"""Number of entries of an EXIF directory that are looked at. Cameras write fewer than 50."""
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation, from 1 (upright) to 8. It is 1 if there is none or it cannot be read.

    As in Pillow, XMP counts only if the EXIF metadata has no orientation.
    """
    value = _exif_orientation(exif) if exif else None
    if value is None and xmp and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else 1


def _exif_orientation(exif: bytes) -> int | None:
    tiff = exif
    while tiff.startswith(b"Exif\0\0"):
        tiff = tiff[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for number in range(min(num_entries, MAX_ENTRIES)):
            position = start + 2 + 12 * number
            tag, kind, count = struct.unpack_from(f"{order}HHI", tiff, position)
            if tag == _ORIENTATION and kind in (_SHORT, _LONG) and count == 1:
                form = f"{order}{'H' if kind == _SHORT else 'I'}"
                return int(struct.unpack_from(form, tiff, position + 8)[0])
    except struct.error:
        return None
    return None
