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

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.data import memory_budget
from training.data.decoding import LARGE_PIXELS, orientation_of, upright_rgb
from training.data.formats.encoded import Encoded
from training.data.formats.metadata import orientation
from training.data.formats.sniffing import check_file
from training.data.image_errors import ImageError, Reason, damaged_header, too_costly

__all__ = ["ImageError", "Reason"]

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
MAX_UNPACKED_BYTES = 200_000_000
"""Maximum size of the pixels of a PNG or a TIFF, before they are converted to 8 bits. It suffices
for 50 megapixels of 4 bytes. Among ordinary files, unpacking these takes the longest."""
MAX_FILE_BYTES = 512 * 1024 * 1024
THUMBNAIL_PX = 192

# Pillow's global pixel limit is off, because open_picture has a limit that callers can set.
Image.MAX_IMAGE_PIXELS = None
# The pixels of a large image lie in blocks of this size instead of 16 MiB. The C library gives
# blocks of more than 32 MiB back to the system when they are freed, and keeps smaller ones.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]  # not in Pillow's types
# Pillow warns about unusual metadata. The pixels do not depend on the metadata, and users cannot
# correct the metadata.
warnings.filterwarnings("ignore", module=r"PIL\.")


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
    whole: Image.Image | None = None
    """If the picture is large and narrow, `image` is only its centre. Then this is the whole
    picture, with its longer side reduced more."""


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


@dataclass(frozen=True)
class Checked:
    """An image file that has been checked, and may be decoded."""

    encoded: Encoded
    side: int
    """The decoder may reduce the image, but no side to fewer than this number of pixels."""
    num_bytes: int
    """Memory that decoding takes at most, in bytes."""


def check_picture(source: Source, *, size: int, max_pixels: int = MAX_PIXELS) -> Checked:
    """Check an image for a square of `size` pixels without decoding it; raises ImageError.

    docs/security.md lists what is refused.
    """
    encoded = check_file(source if isinstance(source, bytes) else read_bytes(source))
    width, height = encoded.width, encoded.height
    if width * height > max_pixels:
        raise ImageError(
            "too-many-pixels",
            f"the image has {width} x {height} = {width * height:,} pixels; "
            f"at most {max_pixels:,} are accepted, so scale it down",
        )
    if encoded.unpacked_bytes > MAX_UNPACKED_BYTES:
        raise too_costly(
            f"the pixels take {encoded.unpacked_bytes:,} bytes before they are converted; "
            f"at most {MAX_UNPACKED_BYTES:,} are unpacked"
        )
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster. The canvas is
    # almost the same if the sides of the decoded image are at least twice as long as needed.
    side = max(2 * canvas_px(size), 2 * THUMBNAIL_PX)
    num_pixels = width * height
    if encoded.can_shrink:
        shrink = next((by for by in (8, 4, 2) if min(width, height) // side >= by), 1)
        num_pixels = -(-width // shrink) * -(-height // shrink)
    # A large image is reduced by at least two along each side.
    num_rgb_pixels = num_pixels if num_pixels <= LARGE_PIXELS else num_pixels // 4
    num_bytes = encoded.working_bytes + encoded.pixel_bytes * num_pixels + 4 * num_rgb_pixels
    if num_bytes > memory_budget.MAX_DECODE_BYTES:
        raise ImageError(
            "too-costly",
            f"decoding the image takes about {num_bytes // 1_000_000:,} MB; "
            f"at most {memory_budget.MAX_DECODE_BYTES // 1_000_000:,} MB are used, "
            "so scale it down",
        )
    return Checked(encoded, side, num_bytes)


def open_picture(source: Source | Checked, *, size: int, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image for a square of `size` pixels; raises ImageError.

    The file is checked before anything is decoded, except if it was checked with the same `size`
    already. The EXIF orientation is applied. Transparent pixels are drawn on white. 16-bit grey
    values are scaled to 8 bits. The first frame of an animation is used. All threads together use
    at most the memory of `memory_budget.decoding`.
    """
    if not isinstance(source, Checked):
        source = check_picture(source, size=size, max_pixels=max_pixels)
    with memory_budget.decoding.lend(source.num_bytes):
        return _decode(source)


def from_pillow(image: Image.Image) -> Picture:
    """Convert an open Pillow image to a Picture; raises ImageError.

    The image is made upright RGB, as in `open_picture`. The given image object is not changed. A
    JPEG is decoded at its full size.
    """
    if not image.width or not image.height:
        raise ImageError(
            "empty", f"the image has {image.width} x {image.height} pixels; it needs at least one"
        )
    try:
        image.load()  # comes first, because it makes a TIFF upright and removes its orientation
        upright, _ = upright_rgb(image, orientation_of(image))
    except ImageError:
        raise
    except Exception as error:
        raise _damaged(error) from error
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
    image, full_size = picture.image, picture.image.size
    if picture.whole:
        image, full_size = picture.whole, (picture.width, picture.height)
    scale = min(1, side_px / max(full_size))
    size = max(1, round(full_size[0] * scale)), max(1, round(full_size[1] * scale))
    # With reducing_gap, Pillow averages whole pixels first. This takes less than half the time of
    # filtering all pixels. The difference cannot be seen at the size of a thumbnail.
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def _decode(checked: Checked) -> Picture:
    encoded = checked.encoded
    try:
        image = encoded.open()
    except Exception as error:  # Pillow's plugins raise almost anything for damaged headers
        raise damaged_header() from error
    if image.width * image.height > encoded.width * encoded.height:
        raise damaged_header()  # the check has read another size than Pillow
    width, height = image.size
    try:
        if encoded.can_shrink:
            image.draft("RGB", (checked.side, checked.side))
        image.load()
        turn = encoded.orientation
        if turn is None:
            turn = orientation(image.info.get("exif"), image.info.get("xmp"))
        upright, whole = upright_rgb(image, turn, checked.side)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others
        raise _damaged(error) from error
    return Picture(upright, *((height, width) if turn >= 5 else (width, height)), whole)


def _damaged(error: Exception) -> ImageError:
    return ImageError(
        "truncated", f"the image is cut off or damaged ({error}); use a complete copy of the file"
    )
