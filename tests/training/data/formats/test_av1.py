"""The size of the frames in AV1 data."""

import pytest

from tests.training.data.formats.files import encoded, red
from training.data.formats.av1 import MAX_FRAMES, MAX_UNITS, decoded_pixels
from training.data.image_errors import ImageError

TEMPORAL_DELIMITER = bytes([2 << 3 | 2, 0])


def av1(width: int, height: int) -> bytes:
    """The AV1 data of an image: everything in the box `mdat`, which is the last one."""
    data = encoded(red(width, height), "AVIF", speed=10)
    return data[data.index(b"mdat") + 4 :]


def sequence_header(bits: str) -> bytes:
    """A unit with a sequence header of these bits, and a unit with a frame."""
    bits = bits.replace(" ", "")
    bits += "0" * (-len(bits) % 8)
    content = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([1 << 3 | 2, len(content)]) + content + bytes([6 << 3 | 2, 1, 0])


@pytest.mark.parametrize(("width", "height"), [(64, 64), (101, 77), (3000, 200)])
def test_the_size_of_an_encoded_image_is_found(width: int, height: int) -> None:
    assert decoded_pixels(av1(width, height)) == width * height


def test_every_optional_part_of_the_header_is_skipped() -> None:
    size = "1111 1111" + format(3999, "016b") + format(2999, "016b")
    short = "000 1 1 00000"
    plain = "000 0 0" + "0 0 00000" + "000000000000 00000"
    uvlc = "001 00"
    timing = "1" + "0" * 64 + "1" + uvlc + "1" + "00001" + "0" * 42
    initial_delay = "1 00000"
    point = "000000000000 01000 1" + "1 00 00 0" + "1 0000"
    for bits in (short, plain, "000 0 0" + timing + initial_delay + point):
        assert decoded_pixels(sequence_header(bits + size)) == 4000 * 3000


def test_every_frame_counts() -> None:
    data = sequence_header("000 1 1 00000 0111 0111 11111111 11111111")
    frame = bytes([6 << 3 | 2, 1, 0])
    assert decoded_pixels(data) == 256 * 256
    assert decoded_pixels(data + 3 * frame) == 4 * 256 * 256
    with pytest.raises(ImageError, match="frames"):
        decoded_pixels(data + MAX_FRAMES * frame)


def test_the_largest_of_several_headers_counts() -> None:
    small = sequence_header("000 1 1 00000 0111 0111 00000000 00000000")
    large = sequence_header("000 1 1 00000 0111 0111 11111111 11111111")
    assert decoded_pixels(small + large) == 2 * 256 * 256


def test_many_units_are_refused() -> None:
    with pytest.raises(ImageError, match="units"):
        decoded_pixels(MAX_UNITS * TEMPORAL_DELIMITER)


def test_a_header_that_ends_too_early_is_damaged() -> None:
    with pytest.raises(ImageError, match="cut off"):
        decoded_pixels(sequence_header("000 1 1 00000 1111"))
    with pytest.raises(ImageError, match="cut off"):
        decoded_pixels(bytes([2 << 3 | 2]) + b"\xff" * 9)
