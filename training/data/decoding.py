"""Convert Pillow images to upright RGB, in blocks, so that large images need little memory."""

from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from training.data.image_errors import ImageError

LARGE_PIXELS = 8_000_000
"""An image with more pixels is reduced while it is converted."""
BLOCK_PIXELS = 1_000_000
MAX_BLOCK_WIDTH = 8192

TRANSPOSES = {
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


def upright_rgb(
    image: Image.Image, orientation: int, side: int | None = None
) -> tuple[Image.Image, Image.Image | None]:
    """The loaded image as upright 8-bit RGB, with transparent pixels drawn on white.

    A large image is reduced by a whole number, so that no side becomes shorter than `side` pixels.
    If a large image is too narrow for this, only its centre is returned, and a second image shows
    the whole picture, reduced along its longer side. Without `side`, nothing is reduced. Raises
    ImageError.
    """
    width, height = image.size
    if side is None or width * height <= LARGE_PIXELS:
        return _upright(_to_rgb(image, (1, 1)), orientation), None
    if (factor := min(width, height) // side) > 1:
        return _upright(_to_rgb(image, (factor, factor)), orientation), None
    factors = max(1, width // (2 * side)), max(1, height // (2 * side))
    whole = _upright(_to_rgb(image, factors), orientation)
    return _upright(_to_rgb(image.crop(_centre_box(width, height)), (1, 1)), orientation), whole


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a Pillow image, from 1 (upright) to 8. It is 1 if it is unreadable.

    Pillow's exif_transpose is not used, because it writes the metadata again. That fails if one
    value of the metadata is invalid.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises almost anything for damaged metadata
        return 1
    return orientation if orientation in TRANSPOSES else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else image


def _centre_box(width: int, height: int) -> tuple[int, int, int, int]:
    """The box of the central square. It is one pixel longer if it would begin within a pixel."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, width - left, height - top


def _to_rgb(image: Image.Image, factors: tuple[int, int]) -> Image.Image:
    """The image in RGB, reduced by a factor per direction."""
    is_reduced = factors != (1, 1)
    if image.mode == "RGB" and not image.has_transparency_data and not is_reduced:
        return image
    if image.width * image.height <= BLOCK_PIXELS and not is_reduced:
        return _block_to_rgb(image)
    across, down = factors
    size = -(-image.width // across), -(-image.height // down)
    out = Image.new("RGB", size)
    for box in _blocks(image.width, image.height, across, down):
        block = _block_to_rgb(image.crop(box))
        out.paste(
            block.reduce(factors) if is_reduced else block, (box[0] // across, box[1] // down)
        )
    return out


def _blocks(width: int, height: int, across: int, down: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover an image. Their sides are multiples of the factors, except at the edges."""
    block_width = min(width, max(1, MAX_BLOCK_WIDTH // across) * across)
    block_height = max(1, BLOCK_PIXELS // block_width // down) * down
    for top in range(0, height, block_height):
        for left in range(0, width, block_width):
            yield left, top, min(left + block_width, width), min(top + block_height, height)


def _block_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion would clip 16-bit grey values at 255.
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
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
