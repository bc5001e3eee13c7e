"""Recognise the format of a file by its first bytes, and check it."""

import struct
from collections.abc import Callable, Mapping

from training.data.formats import avif, bmp, gif, jpeg, png, pnm, tiff, webp
from training.data.formats.encoded import Encoded
from training.data.image_errors import ImageError, damaged_header

SUPPORTED = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or PNM"
_CHECKS: Mapping[bytes, Callable[[bytes], Encoded]] = {
    jpeg.MAGIC: jpeg.check,
    png.MAGIC: png.check,
    bmp.MAGIC: bmp.check,
    **dict.fromkeys(gif.MAGICS, gif.check),
    **dict.fromkeys(tiff.MAGICS, tiff.check),
    **dict.fromkeys((b"P%d" % number for number in range(1, 7)), pnm.check),
    **dict.fromkeys((b"Pf", b"PF"), pnm.check),
}
"""The check of a format, by the first bytes of its files. WebP and AVIF have functions instead."""
_FOREIGN = {
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"%!PS": "a PostScript file",
    b"\0\0\0\x0cjP": "a JPEG 2000 image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL": "a JPEG XL image",
}
"""The first bytes of files of other kinds, with the names of these kinds."""


def check_file(data: bytes) -> Encoded:
    """Check the bytes of a file, without decoding it.

    Raises ImageError if it is not an image, if it is damaged in its header, or if decoding it would
    cost too much.
    """
    if not data:
        raise ImageError("empty", "the file is empty (0 bytes); use an image")
    check = next((one for magic, one in _CHECKS.items() if data.startswith(magic)), None)
    if webp.is_webp(data):
        check = webp.check
    elif avif.is_avif(data):
        check = avif.check
    if check is None:
        raise _other_kind(data)
    try:
        encoded = check(data)
    except (struct.error, IndexError) as error:  # the header ends too early
        raise damaged_header() from error
    if encoded.width <= 0 or encoded.height <= 0:
        raise damaged_header()
    return encoded


def _other_kind(data: bytes) -> ImageError:
    """The error for a file of no supported format. It names the kind if that is known."""
    head = data[:64]
    kind = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        kind = "a HEIC image" if head[8:11] in (b"hei", b"hev", b"mif") else "a video"
    elif b"<svg" in data[:1024]:
        kind = "an SVG drawing"
    if kind:
        return ImageError("unsupported", f"this is {kind}; use {SUPPORTED}")
    return ImageError("not-an-image", f"this is not an image; use {SUPPORTED}")
