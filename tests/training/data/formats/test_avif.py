"""The check of AVIF files: boxes, items, and frames that are larger than the image says."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.training.data.formats.files import encoded, red, refusal
from training.data.formats.avif import MAX_BOXES, check, is_avif


def avif(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "AVIF", speed=10, **options)


def saying(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its container."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_size_is_that_of_the_image(mode: str) -> None:
    data = avif(red(91, 83).convert(mode))
    checked = check(data)
    assert is_avif(data)
    assert (checked.width, checked.height) == (91, 83) == checked.open().size


@pytest.mark.parametrize(("width", "height"), [(100, 100), (1, 1), (2000, 1)])
def test_frames_larger_than_the_image_says_are_refused(width: int, height: int) -> None:
    error = refusal(check, saying(avif(red(2000, 2000)), width, height))
    assert error.reason == "too-costly"
    assert "4,000,000" in str(error)


def test_an_image_that_says_more_than_its_frame_costs_what_it_says() -> None:
    checked = check(saying(avif(red(64, 64)), 5000, 4000))
    assert 0 <= checked.working_bytes - 8 * 5000 * 4000 < 10_000


def test_transparency_counts_as_a_second_image() -> None:
    opaque = avif(red(200, 200))
    half = avif(Image.new("RGBA", (200, 200), (9, 9, 9, 90)))
    assert check(opaque).working_bytes == 8 * 200 * 200 + len(opaque)
    assert check(half).working_bytes == 2 * 8 * 200 * 200 + len(half)


def test_of_an_animation_the_still_image_is_decoded() -> None:
    others = [Image.new("RGB", (90, 80), "blue"), Image.new("RGB", (90, 80), "lime")]
    data = avif(red(), save_all=True, append_images=others, duration=100)
    image = check(data).open()
    assert data[8:12] == b"avis"
    assert getattr(image, "n_frames", 1) == 1
    assert np.abs(np.asarray(image, int) - (200, 10, 10)).max() < 6


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_many_boxes_are_refused() -> None:
    data = avif(red())
    assert refusal(check, data + MAX_BOXES * box(b"free", b"")).reason == "too-costly"


def test_items_that_share_bytes_many_times_are_refused() -> None:
    data = avif(red(300, 300))
    at = data.index(b"iloc") + 4
    offset, length = struct.unpack(">II", data[at + 14 : at + 22])
    extents = 3000 * struct.pack(">II", offset, length)
    places = box(b"iloc", struct.pack(">IBBHHHH", 0, 0x44, 0, 1, 1, 0, 3000) + extents)
    start = data.index(b"iloc") - 4
    meta = data.index(b"meta") - 4
    added = len(places) - 30
    grown = struct.pack(">I", struct.unpack(">I", data[meta : meta + 4])[0] + added)
    shared = data[:meta] + grown + data[meta + 4 : start] + places + data[start + 30 :]
    error = refusal(check, shared)
    assert "more bytes than the file" in str(error)


def test_a_file_without_a_still_image_is_refused() -> None:
    head = box(b"ftyp", b"avis\0\0\0\0avis")
    assert refusal(check, head + box(b"moov", b"")).reason == "unsupported"
    assert refusal(check, head).reason == "truncated"


def test_other_files_of_the_container_are_not_avif() -> None:
    assert not is_avif(box(b"ftyp", b"mp42\0\0\0\0isom"))
    assert not is_avif(box(b"ftyp", b"heic\0\0\0\0mif1"))
    assert is_avif(box(b"ftyp", b"mif1\0\0\0\0avif"))
