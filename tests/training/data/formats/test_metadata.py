"""The orientation in EXIF and XMP metadata."""

import struct
import time

import pytest

from training.data.formats.metadata import orientation


def exif(*entries: bytes, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IH", 8, len(entries)) + b"".join(entries) + bytes(4)


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_found_in_both_byte_orders(value: int) -> None:
    assert orientation(exif(entry(0x0112, 3, 1, struct.pack("<HH", value, 0)))) == value
    assert orientation(exif(entry(0x0112, 4, 1, struct.pack("<I", value)))) == value
    big = struct.pack(">HHIHH", 0x0112, 3, 1, value, 0)
    assert orientation(b"Exif\0\0" + exif(big, order=">")) == value


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"rubbish",
        b"II*\0",
        exif(entry(0x0112, 3, 1, struct.pack("<HH", 9, 0))),
        exif(entry(0x0112, 2, 1, b"6\0\0\0")),
        exif(entry(0x0112, 3, 2**31, bytes(4))),
        b"II*\0" + struct.pack("<I", 2**32 - 1),
    ],
)
def test_unreadable_metadata_means_upright(data: bytes | None) -> None:
    assert orientation(data) == 1


def test_xmp_counts_only_without_an_exif_orientation() -> None:
    six = exif(entry(0x0112, 3, 1, struct.pack("<HH", 6, 0)))
    xmp = b'<x tiff:Orientation="8"/>'
    assert orientation(None, xmp) == 8
    assert orientation(exif(), b"<tiff:Orientation>3</tiff:Orientation>") == 3
    assert orientation(six, xmp) == 6


def test_values_that_share_bytes_are_not_read() -> None:
    """Reading each of these entries as Pillow does would take 4 GB."""
    entries = [entry(number, 7, 65_000, struct.pack("<I", 8)) for number in range(1, 65_000)]
    started = time.process_time()
    assert orientation(exif(*entries)) == 1
    assert time.process_time() - started < 1
