"""Bytes, a path or a place in a tar file -> an upright RGB square, safely.

Training's evaluation, the indexer and the service all come through here, so that one image has one feature everywhere.
No torch: the service runs without it.

The square is the paper's (Krizhevsky et al. 2012, section 2), with one liberty: the short side is resized to 256, the
central 256x256 is the *canvas*, and its central 224x224 is the *square*. Training cuts its random crops out of the same
canvas. Other sizes keep the proportion: a square of S pixels comes from a canvas of round(S * 256 / 224).
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

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets each EXIF orientation upright; 5 to 8 exchange width and height."""

# open_picture checks every header against its own limit, so Pillow's process-wide one would only get in the way.
Image.MAX_IMAGE_PIXELS = None
# What it warns of is odd metadata, which the pixels do without and a command's reader as well.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(UserError):
    """An image that cannot be used; `reason` is for programs, the text for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason


@dataclass(frozen=True)
class TarMember:
    """An image within a tar file, not compressed: `num_bytes` from byte `offset` on."""

    file: Path
    offset: int
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset:,}"


Source = bytes | Path | TarMember
"""Where an image's bytes are."""


@dataclass(frozen=True)
class Picture:
    """An upright RGB image, perhaps decoded at a reduced scale; `width` and `height` are the file's own, upright."""

    image: Image.Image
    width: int
    height: int


def canvas_px(size: int) -> int:
    """The side of the canvas that a square of `size` pixels is cut from: 256 for the paper's 224."""
    return round(size * 256 / 224)


def read_bytes(source: Path | TarMember) -> bytes:
    """The bytes of a file, or of one in a tar file; raises ImageError for what is not a readable regular file of sensible size."""
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
    descriptor = os.open(member.file, os.O_RDONLY)
    try:
        content = os.pread(
            descriptor, member.num_bytes, member.offset
        )  # the descriptor is this call's own, so threads do not meet
    finally:
        os.close(descriptor)
    if len(content) < member.num_bytes:
        raise ImageError(
            "unreadable", f"cannot be read: {member.file} has become shorter than it was"
        )
    return content


def open_picture(source: Source, *, size: int, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes an image for a square of `size` pixels; raises ImageError.

    The pixel count is checked from the header, before anything is decoded. EXIF orientation is applied, transparency is
    laid on white, 16-bit greys are scaled to 8 bits, and of an animation the first frame is taken.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    if not data:
        raise ImageError("empty", "the file is empty (0 bytes); an image is needed")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's plugins raise almost anything on damaged headers
        raise _unidentified(data) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            "too-many-pixels",
            f"the image has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are accepted, so scale it down",
        )
    try:
        # A JPEG decodes straight to 1/2, 1/4 or 1/8 where that still leaves twice the pixels needed: much faster, hardly different.
        side = max(2 * canvas_px(size), 2 * THUMBNAIL_PX)
        image.draft("RGB", (side, side))
        image.load()
        orientation = _orientation(image)
        upright = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
        if orientation >= 5:
            width, height = height, width
        return Picture(_to_rgb(upright), width, height)
    except ImageError:
        raise
    except Exception as error:  # as above: OSError, SyntaxError, struct.error, ValueError, ...
        raise ImageError(
            "truncated", f"the image is cut off or damaged ({error}); send it again, whole"
        ) from error


def to_canvas(picture: Picture, size: int) -> Pixels:
    """The central square of the picture, (canvas, canvas, 3) uint8, from which a square of `size` or a random crop is cut."""
    image, side = picture.image, canvas_px(size)
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    # Cropping while resizing costs the same for any shape: 1 x 50,000,000 pixels too.
    square = image.resize(
        (side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
    )
    return np.asarray(square)


def to_square(picture: Picture, size: int) -> Pixels:
    """What the network sees, (size, size, 3) uint8 RGB."""
    return centre(to_canvas(picture, size), size)


def read_square(source: Source, size: int, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """`to_square` of `open_picture`; raises ImageError."""
    return to_square(open_picture(source, size=size, max_pixels=max_pixels), size)


def centre(canvases: Pixels, size: int) -> Pixels:
    """The central (size, size) of (..., canvas, canvas, 3): the evaluation's square."""
    start = (canvases.shape[-2] - size) // 2
    return canvases[..., start : start + size, start : start + size, :]


def to_thumbnail(picture: Picture, side_px: int = THUMBNAIL_PX) -> bytes:
    """The whole picture as a small JPEG, its longer side at most `side_px`; never enlarged."""
    image = picture.image
    scale = min(1, side_px / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # Averaging whole pixels first costs less than half of filtering them all, and nobody sees it at this size.
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if (
        image.mode.startswith("I;16") or image.mode == "I"
    ):  # 16-bit greys; Pillow's own conversion would clip them at 255
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(
            "unsupported",
            "the image has floating-point pixels, whose range is unknown; save it with 8 or 16 bits",
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8. Metadata that cannot be read do not condemn the pixels: 1.

    Not ImageOps.exif_transpose, which writes the metadata anew and fails where they hold a single odd value.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as above
        return 1
    return orientation if orientation in _TURNS else 1


def _unidentified(data: bytes) -> ImageError:
    """Why Pillow could not open these bytes, told from their first ones."""
    head = data[:64]
    supported = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
    is_avif = head[4:8] == b"ftyp" and (b"avif" in head or b"avis" in head)
    if head.startswith(supported) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or is_avif:
        return ImageError(
            "truncated", "the image is cut off or damaged in its header; send it again, whole"
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
        return ImageError("unsupported", f"this is {kind}; send {SUPPORTED}")
    return ImageError("not-an-image", f"this is not an image; send {SUPPORTED}")
