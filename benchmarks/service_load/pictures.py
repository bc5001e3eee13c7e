"""Small pictures that differ from each other, made from their numbers."""

import io

import numpy as np
from PIL import Image

CELLS, SIZE_PX = 4, 96


def picture(number: int) -> bytes:
    """A PNG with a few coloured spots. Another number, which may be negative, gives other spots."""
    random = np.random.default_rng([abs(number), number < 0])
    cells = random.integers(0, 256, (CELLS, CELLS, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
