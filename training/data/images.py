"""Decode the bytes of an image to an upright RGB square, safely.

Evaluation, indexing and the service all call these functions, so an image has the same feature
everywhere. The module does not import torch, because the service runs without it.

The short side is resized to 256 pixels and the central 256x256 pixels are cut out, as in Krizhevsky
et al. 2012, section 2. This image is called the *canvas*. Training cuts random crops from the
canvas, as the paper does. All other commands use the central 224x224 pixels of the canvas, called
the *square*. The paper averages ten crops instead (section 4.1). Other sizes have the same ratio: a
square of S pixels comes from a canvas of round(S * 256 / 224) pixels.
"""

import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from training.errors import UserError

Reason = Literal[
    "empty", "not-an-image", "unsupported", "truncated", "too-many-pixels", "unreadable"
]
Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 512 * 1024 * 1024
THUMBNAIL_PX = 192
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
SUPPORTED = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or PNM"

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Maps each EXIF orientation to the operation that makes the image upright. The operations for the
orientations 5 to 8 swap width and height."""

# Pillow's global pixel limit is off, because open_picture has a limit that callers can set.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about unusual metadata. The pixels do not depend on the metadata, and users cannot
# correct the metadata.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(UserError):
    """An image that cannot be used. `reason` is for programs, the message is for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason


@dataclass(frozen=True)
class TarMember:
    """An image in an uncompressed tar file: the `num_bytes` bytes that start at `offset`."""

    file: Path
    offset: int
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset:,}"


Source = bytes | Path | TarMember
"""An encoded image: bytes in memory, a file, or a member of a tar file."""


@dataclass(frozen=True)
class Picture:
    """An upright RGB image, possibly decoded at a reduced scale."""

    image: Image.Image
    width: int
    height: int
    """The size of the upright image at full scale, in pixels."""


def canvas_px(size: int) -> int:
    """The side of the canvas for squares of `size` pixels, for example 256 for 224 pixels."""
    return round(size * 256 / 224)


def read_bytes(source: Path | TarMember) -> bytes:
    """Read a file or a member of a tar file.

    Raises ImageError if it is not a regular file, cannot be read, or exceeds MAX_FILE_BYTES.
    """
    try:
        status = (source if isinstance(source, Path) else source.file).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("unreadable", "not a regular file")
        num_bytes = status.st_size if isinstance(source, Path) else source.num_bytes
        if num_bytes > MAX_FILE_BYTES:
            raise ImageError(
                "unreadable", f"{num_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read"
            )
        return source.read_bytes() if isinstance(source, Path) else _read_member(source)
    except OSError as error:
        raise ImageError("unreadable", f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null byte in the path
        raise ImageError("unreadable", f"cannot be read: {error}") from error


def _read_member(member: TarMember) -> bytes:
    # Each call has its own descriptor, so several threads can read one tar file.
    descriptor = os.open(member.file, os.O_RDONLY)
    try:
        content = os.pread(descriptor, member.num_bytes, member.offset)
    finally:
        os.close(descriptor)
    if len(content) < member.num_bytes:
        raise ImageError(
            "unreadable", f"cannot be read: {member.file} has become shorter than it was"
        )
    return content


def open_picture(source: Source, *, size: int, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image for a square of `size` pixels; raises ImageError.

    The number of pixels in the header is checked before anything is decoded. The EXIF orientation
    is applied. Transparent pixels are drawn on white. 16-bit grey values are scaled to 8 bits. The
    first frame of an animation is used.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    if not data:
        raise ImageError("empty", "the file is empty (0 bytes); use an image")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's plugins raise almost anything for damaged headers
        raise _unidentified(data) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            "too-many-pixels",
            f"the image has {width} x {height} = {width * height:,} pixels; "
            f"at most {max_pixels:,} are accepted, so scale it down",
        )
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster. The canvas is
    # almost the same if the sides of the decoded image are at least twice as long as needed.
    side = max(2 * canvas_px(size), 2 * THUMBNAIL_PX)
    upright, has_swapped_sides = _decode(image, reduce_to=side)
    return Picture(upright, *((height, width) if has_swapped_sides else (width, height)))


def from_pillow(image: Image.Image) -> Picture:
    """Convert an open Pillow image to a Picture; raises ImageError.

    The image is made upright RGB, as in `open_picture`. The given image object is not changed. A
    JPEG is decoded at its full size.
    """
    if not image.width or not image.height:
        raise ImageError(
            "empty", f"the image has {image.width} x {image.height} pixels; it needs at least one"
        )
    upright, _ = _decode(image)
    return Picture(upright, *upright.size)


def to_canvas(picture: Picture, size: int) -> Pixels:
    """The picture's canvas for squares of `size` pixels, (canvas, canvas, 3) uint8."""
    image, side = picture.image, canvas_px(size)
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    # `resize` crops too. This costs the same for any shape, even for 1 x 50,000,000 pixels.
    square = image.resize(
        (side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
    )
    return np.asarray(square)


def to_square(picture: Picture, size: int) -> Pixels:
    """The picture's square, (size, size, 3) uint8: the input of the network."""
    return centre(to_canvas(picture, size), size)


def read_square(source: Source, size: int, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image to its square, (size, size, 3) uint8; raises ImageError."""
    return to_square(open_picture(source, size=size, max_pixels=max_pixels), size)


def centre(canvases: Pixels, size: int) -> Pixels:
    """The central squares of canvases: (..., canvas, canvas, 3) -> (..., size, size, 3)."""
    start = (canvases.shape[-2] - size) // 2
    return canvases[..., start : start + size, start : start + size, :]


def to_thumbnail(picture: Picture, side_px: int = THUMBNAIL_PX) -> bytes:
    """The whole picture as a JPEG with a longer side of at most `side_px` pixels.

    A small picture is not enlarged.
    """
    image = picture.image
    scale = min(1, side_px / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # With reducing_gap, Pillow averages whole pixels first. This takes less than half the time of
    # filtering all pixels. The difference cannot be seen at the size of a thumbnail.
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def _decode(image: Image.Image, *, reduce_to: int | None = None) -> tuple[Image.Image, bool]:
    """Return the upright RGB image, and whether making it upright swapped width and height.

    If `reduce_to` is given, a JPEG may be decoded at a smaller scale, but no side is reduced to
    fewer than `reduce_to` pixels. Raises ImageError.
    """
    try:
        if reduce_to:
            image.draft("RGB", (reduce_to, reduce_to))
        image.load()  # comes first, because it makes a TIFF upright and removes its orientation
        orientation = _orientation(image)
        is_upright = orientation not in _TRANSPOSES
        upright = image if is_upright else image.transpose(_TRANSPOSES[orientation])
        return _to_rgb(upright), orientation >= 5
    except ImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others
        raise ImageError(
            "truncated",
            f"the image is cut off or damaged ({error}); use a complete copy of the file",
        ) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1 (upright) to 8. It is 1 if the metadata cannot be read.

    Pillow's exif_transpose is not used, because it writes the metadata again. That fails if one
    value of the metadata is invalid.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises almost anything for damaged metadata
        return 1
    return orientation if orientation in _TRANSPOSES else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB, with transparent pixels drawn on white; raises ImageError."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion would clip 16-bit grey values at 255.
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(
            "unsupported",
            "the image has floating-point pixels of unknown range; save it with 8 or 16 bits",
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _unidentified(data: bytes) -> ImageError:
    """The error for a file that Pillow cannot open, chosen by the first bytes of the file."""
    head = data[:64]
    supported = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
    is_avif = head[4:8] == b"ftyp" and (b"avif" in head or b"avis" in head)
    if head.startswith(supported) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or is_avif:
        return ImageError(
            "truncated",
            "the image is cut off or damaged in its header; use a complete copy of the file",
        )
    foreign = {
        b"%PDF": "a PDF",
        b"8BPS": "a Photoshop file",
        b"%!PS": "a PostScript file",
        b"\0\0\0\x0cjP": "a JPEG 2000 image",
        b"\xff\x0a": "a JPEG XL image",
        b"\0\0\0\x0cJXL": "a JPEG XL image",
    }
    kind = next((name for magic, name in foreign.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        kind = "a HEIC image" if head[8:11] in (b"hei", b"hev", b"mif") else "a video"
    elif b"<svg" in data[:1024]:
        kind = "an SVG drawing"
    if kind:
        return ImageError("unsupported", f"this is {kind}; use {SUPPORTED}")
    return ImageError("not-an-image", f"this is not an image; use {SUPPORTED}")
