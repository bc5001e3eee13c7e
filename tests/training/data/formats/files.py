"""Files of each format for the tests of the checks, and how a check refuses a file."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from training.data.formats.encoded import Encoded
from training.data.image_errors import ImageError


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey(width: int = 90, height: int = 80, value: int = 100) -> Image.Image:
    return Image.new("L", (width, height), value)


def red(width: int = 90, height: int = 80) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 10, 10))


def refusal(check: Callable[[bytes], Encoded], data: bytes) -> ImageError:
    """The error of a check that must refuse the file."""
    with pytest.raises(ImageError) as caught:
        check(data)
    assert "\n" not in str(caught.value)
    return caught.value
