"""The check of GIF files: what lies before the first frame, and the size."""

import struct

import pytest

from tests.training.data.formats.files import encoded, grey, refusal
from training.data.formats.gif import MAX_BLOCKS, check


def gif(extensions: bytes = b"", frames: int = 1) -> bytes:
    """A GIF with bytes before its first frame, which is repeated."""
    data = encoded(grey(), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + extensions + frames * data[start:-1] + data[-1:]


@pytest.mark.parametrize(
    "extensions",
    [
        b"\x21\xfe\x01a\0" * (MAX_BLOCKS + 1),
        b"\x21\xfe" + b"\x01a" * (MAX_BLOCKS + 1) + b"\0",
        b"\x21\xff\x0bNETSCAPE2.0\0" * MAX_BLOCKS,
        bytes(MAX_BLOCKS + 1),
    ],
)
def test_many_extensions_are_refused(extensions: bytes) -> None:
    assert refusal(check, gif(extensions)).reason == "too-costly"


def test_a_few_extensions_and_any_number_of_frames_are_accepted() -> None:
    checked = check(gif(b"\x21\xfe\x03abc\0", frames=20_000))
    assert (checked.width, checked.height) == (90, 80)
    assert checked.open().convert("RGB").getpixel((0, 0)) == (100, 100, 100)


def test_a_frame_outside_the_screen_makes_the_picture_larger() -> None:
    data = bytearray(gif())
    at = data.index(b"\x2c", 13 + (3 << (data[10] & 7) + 1))
    data[at + 1 : at + 5] = struct.pack("<HH", 40_000, 50_000)
    checked = check(bytes(data))
    assert (checked.width, checked.height) == (40_090, 50_080)


def test_a_gif_without_a_frame_is_damaged() -> None:
    data = gif()
    start = 13 + (3 << (data[10] & 7) + 1)
    assert refusal(check, data[:start] + b"\x3b").reason == "truncated"
