"""The check of JPEG files: kinds of coding, tables, segments, scans, memory."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.training.data.formats.files import encoded, red, refusal
from training.data.formats.jpeg import MAX_SEGMENTS, check

SOS = b"\xff\xda"


def progressive(width: int, height: int, num_scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(red(width, height), "JPEG", progressive=True)
    last = data[data.rindex(SOS) : -2]
    return data[:-2] + (num_scans - data.count(SOS)) * last + data[-2:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_pillow_sees_the_same_pixels_without_the_metadata(options: dict[str, object]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    metadata = {"comment": b"private", "icc_profile": b"profile" * 9, "exif": b"Exif\0\0rubbish"}
    data = encoded(Image.fromarray(pixels), "JPEG", **metadata, **options)
    checked = check(data)
    image = checked.open()
    assert (checked.width, checked.height) == (90, 80)
    assert not {"comment", "icc_profile", "exif"} & set(image.info)
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(("side", "num_scans"), [(2000, 101), (5000, 42), (7000, 150)])
def test_too_many_scans_for_the_size_are_refused(side: int, num_scans: int) -> None:
    error = refusal(check, progressive(side, side, num_scans))
    assert error.reason == "too-costly"
    assert "scans" in str(error)


@pytest.mark.parametrize(("side", "num_scans"), [(64, 90), (4000, 12)])
def test_ordinary_numbers_of_scans_are_accepted(side: int, num_scans: int) -> None:
    assert check(progressive(side, side, num_scans)).width == side


def test_scans_that_hide_behind_a_false_end_are_counted() -> None:
    data = progressive(2000, 2000, 101)
    start = data.rindex(SOS)
    hidden = data[:start] + segment(0xFE, b"\xff\xd9 the end") + data[start:]
    assert refusal(check, hidden).reason == "too-costly"


def test_what_follows_the_image_does_not_count_as_scans() -> None:
    data = progressive(100, 100, 12)
    assert check(data + 200 * (SOS + b"\0\x08video")).width == 100


def test_many_segments_before_and_between_the_scans_are_refused() -> None:
    data = progressive(100, 100, 110)
    comment = segment(0xFE, b"")
    before = data[:2] + (MAX_SEGMENTS + 1) * comment + data[2:]
    between = data[:-2] + (MAX_SEGMENTS + 1) * comment + data[-2:]
    between = between.replace(SOS, (MAX_SEGMENTS + 1) * comment + SOS, 2)
    for file in (before, between):
        assert refusal(check, file).reason == "too-costly"


def test_many_tables_are_refused() -> None:
    data = encoded(red(), "JPEG")
    table = segment(0xDB, b"".join(bytes([0]) + bytes([1]) * 64 for _ in range(500)))
    error = refusal(check, data[:2] + 3 * table + data[2:])
    assert "bytes of tables" in str(error)


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA])
def test_arithmetic_and_lossless_coding_is_refused(marker: int) -> None:
    data = encoded(red(), "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
    assert refusal(check, data).reason == "unsupported"


def test_damaged_headers_are_called_cut_off() -> None:
    data = encoded(red(), "JPEG")
    frame = data.index(b"\xff\xc0")
    twice = data[:frame] + data[frame : frame + 19] + data[frame:]
    no_frame = data[:frame] + data[frame + 19 :]
    wrong_sampling = data[: frame + 11] + b"\x05" + data[frame + 12 :]
    for file in (twice, no_frame, wrong_sampling, data[:100]):
        assert refusal(check, file).reason == "truncated"


def test_only_several_scans_need_memory_for_coefficients() -> None:
    baseline = check(encoded(red(1600, 1600), "JPEG", subsampling=0))
    several = check(encoded(red(1600, 1600), "JPEG", subsampling=0, progressive=True))
    assert baseline.working_bytes == 0
    assert several.working_bytes == 3 * 2 * 1600 * 1600
