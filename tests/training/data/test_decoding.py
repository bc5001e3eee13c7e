"""Conversion to RGB in blocks: the same pixels as at once, and reduced if the image is large."""

import io

import numpy as np
import pytest
from PIL import Image

from training.data import decoding
from training.data.decoding import upright_rgb
from training.data.images import Picture, to_square, to_thumbnail


def picture(width: int, height: int, mode: str) -> Image.Image:
    """Random colours of any mode, with transparency if the mode can have it."""
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (height, width, bands), dtype=np.uint8)
    if mode == "P":
        image = Image.fromarray(pixels[..., 0], "L").convert("P")
        image.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        image.info["transparency"] = bytes(range(256))
        return image
    if mode == "1":
        return Image.fromarray(pixels[..., 0]).convert("1")
    return Image.frombytes(mode, (width, height), pixels.tobytes())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK", "YCbCr"])
def test_blocks_give_the_same_pixels_as_the_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(90, 70, mode)
    whole, _ = upright_rgb(image, 6)
    monkeypatch.setattr(decoding, "BLOCK_PIXELS", 100)
    monkeypatch.setattr(decoding, "MAX_BLOCK_WIDTH", 25)
    blocks, none = upright_rgb(image, 6)
    np.testing.assert_array_equal(blocks, np.asarray(whole))
    assert none is None


def test_a_large_image_is_reduced_but_no_side_below_the_given_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(decoding, "BLOCK_PIXELS", 900)
    image = picture(131, 97, "RGBA")
    reduced, _ = upright_rgb(image, 1, 30)
    assert reduced.size == (44, 33)
    white = Image.new("RGBA", image.size, "white")
    expected = Image.alpha_composite(white, image).convert("RGB").reduce(3)
    np.testing.assert_array_equal(reduced, np.asarray(expected))
    unreduced, _ = upright_rgb(image, 1)
    assert unreduced.size == image.size


@pytest.mark.parametrize(("width", "height"), [(400, 41), (40, 401), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_of_a_narrow_image_the_centre_and_the_whole_are_kept(
    width: int, height: int, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)
    image = Image.fromarray(np.stack([ramp, 255 - ramp, ramp], 2))
    size = (width, height) if orientation == 1 else (height, width)
    ordinary = Picture(upright_rgb(image, orientation)[0], *size)
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 1000)
    centre, whole = upright_rgb(image, orientation, 30)
    narrow = Picture(centre, *size, whole)
    assert whole is not None
    assert centre.width * centre.height <= 42 * 42
    np.testing.assert_array_equal(to_square(narrow, 67), to_square(ordinary, 67))
    assert len(to_thumbnail(narrow)) > 0
    thumbnails = [Image.open(io.BytesIO(to_thumbnail(one))) for one in (narrow, ordinary)]
    assert thumbnails[0].size == thumbnails[1].size
    differences = np.abs(np.asarray(thumbnails[0], int) - np.asarray(thumbnails[1], int))
    assert differences.mean() < 4
