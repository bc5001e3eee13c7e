"""The check of BMP files: compressed ones are refused."""

import struct

import pytest
from PIL import Image

from tests.training.data.formats.files import encoded, grey, red, refusal
from training.data.formats.bmp import check


def header(width: int, height: int, compression: int, depth: int = 8) -> bytes:
    """The header of a BMP, and a few run lengths."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 1078) + info + bytes(1024) + b"\xff\1" * 50


@pytest.mark.parametrize(
    "data",
    [
        header(50_000_000, 1, compression=1),
        header(7000, 7000, compression=2, depth=4),
        header(7000, -7000, compression=1),
        header(100, 100, compression=4),
        header(100, 100, compression=5),
    ],
)
def test_compressed_pixels_are_refused(data: bytes) -> None:
    error = refusal(check, data)
    assert error.reason == "unsupported"
    assert "save it without compression" in str(error)


@pytest.mark.parametrize(
    ("image", "pixel_bytes"), [(red(), 4), (grey(), 1), (Image.new("1", (90, 80)), 1)]
)
def test_uncompressed_pixels_are_accepted(image: Image.Image, pixel_bytes: int) -> None:
    checked = check(encoded(image, "BMP"))
    assert (checked.width, checked.height, checked.pixel_bytes) == (90, 80, pixel_bytes)
    assert checked.open().size == (90, 80)


def test_the_oldest_header_and_rows_from_the_top_are_accepted() -> None:
    oldest = struct.pack("<2sIHHIIHHHH", b"BM", 0, 0, 0, 26, 12, 4, 3, 1, 24) + bytes(36)
    checked = check(oldest)
    assert (checked.width, checked.height) == (4, 3)
    assert checked.open().size == (4, 3)
    assert check(header(5, -7, compression=0)).height == 7
