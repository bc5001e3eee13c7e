"""Drawn pictures, one per seed, and changes that make a copy of a picture."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from indexer.reports.picture_similarity import similarity
from training.data.images import open_picture, to_thumbnail

NASTY_PATH = 'a"b\n<script>&.png'
"""A file name that a page or a table must not take for markup or for the end of a line."""


def drawn(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Twelve overlapping shapes on a gradient: another picture for every seed."""
    random = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(60, 200, width)[None, :, None] * np.ones((height, 1, 3))
    picture = Image.fromarray(ramp.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        ranges = (width, height, width / 2, height / 2)
        x, y, shape_width, shape_height = random.uniform(0, 1, 4) * ranges
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        left, top = x - shape_width / 2, y - shape_height / 2
        shape((left, top, x + shape_width / 2, y + shape_height / 2), fill=colour)
    return picture


def resized(picture: Image.Image) -> Image.Image:
    """Three fifths as wide and as high."""
    return picture.resize((picture.width * 3 // 5, picture.height * 3 // 5))


def cropped(picture: Image.Image) -> Image.Image:
    """A few per cent cut off at three sides."""
    return picture.crop((12, 0, picture.width - 6, picture.height - 10))


def brightened(picture: Image.Image) -> Image.Image:
    """An eighth brighter."""
    return ImageEnhance.Brightness(picture).enhance(1.12)


def thumbnail_of(picture: Image.Image, quality: int = 90) -> bytes:
    """The thumbnail that an index keeps of a picture saved as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return to_thumbnail(open_picture(out.getvalue(), size=67))


def similarity_of(one: Image.Image, other: Image.Image, quality: int = 90) -> float:
    """The similarity of two pictures' thumbnails. `quality` is the second file's."""
    first, second = (
        Image.open(io.BytesIO(data)).convert("RGB")
        for data in (thumbnail_of(one), thumbnail_of(other, quality))
    )
    return similarity(first, second)
