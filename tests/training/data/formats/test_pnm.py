"""The check of PNM files: plain ones are refused, and unusual maximum values are scaled."""

import numpy as np
import pytest

from tests.training.data.formats.files import encoded, grey, red, refusal
from training.data.formats.pnm import MAX_HEADER_BYTES, check


@pytest.mark.parametrize(
    "data",
    [
        b"P3\n2000 2000\n255\n" + b"#\n0 " * 1000,
        b"P2\n2000 2000\n255\n" + b"7 " * 1000,
        b"P1\n2000 2000\n" + b"0" * 1000,
        b"Pf\n2 2\n-1\n" + bytes(16),
    ],
)
def test_plain_and_floating_point_pixels_are_refused(data: bytes) -> None:
    assert refusal(check, data).reason == "unsupported"


@pytest.mark.parametrize(
    "header",
    [
        b"P5\n#" + b"x" * MAX_HEADER_BYTES + b"\n2 2\n255\n",
        b"P5" + b" " * MAX_HEADER_BYTES + b"2 2\n255\n",
        b"P6\n" + b"#\n" * MAX_HEADER_BYTES + b"2 2\n255\n",
    ],
)
def test_long_headers_are_refused(header: bytes) -> None:
    error = refusal(check, header + bytes(12))
    assert error.reason == "too-costly"
    assert "header" in str(error)


def test_comments_in_a_short_header_are_skipped() -> None:
    image = check(b"P5 #one\n#two\r2 # three\n 1\n255\n" + bytes([7, 9])).open()
    assert image.tobytes() == bytes([7, 9])


def test_ordinary_files_reach_pillow_unchanged() -> None:
    for image in (red(), grey()):
        data = encoded(image, "PPM")
        assert check(data).parts == [data]


@pytest.mark.parametrize(("most", "kind"), [(100, "u1"), (1023, ">u2"), (65_535, ">u2")])
def test_an_unusual_maximum_is_scaled_to_8_bits_as_by_pillow(most: int, kind: str) -> None:
    samples = np.linspace(0, most, 3 * 40, dtype=kind)
    image = check(b"P6 8 5 %d\n" % most + samples.tobytes()).open()
    scaled = np.round(samples.astype(float) / most * 255)
    assert np.abs(np.asarray(image, float).ravel() - scaled).max() <= 1


def test_samples_above_the_maximum_are_white() -> None:
    assert check(b"P5 2 1 100\n" + bytes([100, 255])).open().tobytes() == b"\xff\xff"


@pytest.mark.parametrize(
    "header", [b"P5 2 x 255\n", b"P5 2 2 0\n", b"P5 2 2 70000\n", b"P5 2 2 255"]
)
def test_a_damaged_header_is_called_cut_off(header: bytes) -> None:
    assert refusal(check, header).reason == "truncated"


def test_missing_samples_are_called_cut_off() -> None:
    assert refusal(check, b"P6 1000 1000 254\n" + bytes(100)).reason == "truncated"
