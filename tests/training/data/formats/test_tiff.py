"""The check of TIFF files: tags, compression, strips and tiles."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.training.data.formats.files import encoded, grey, red, refusal
from training.data.formats.tiff import MAX_PARTS, MAX_TAGS, check

Entry = tuple[int, int, int]
SHORT, LONG, BYTE = 3, 4, 1


def tiff(changes: dict[int, Entry] | None = None, tail: bytes = bytes(10_000)) -> bytes:
    """A grey TIFF of 64 x 64 pixels. `changes` are tags: type, count, and value or offset."""
    tags = {
        **{256: (LONG, 1, 64), 257: (LONG, 1, 64), 258: (SHORT, 1, 8), 259: (SHORT, 1, 1)},
        **{262: (SHORT, 1, 1), 273: (LONG, 1, 200), 277: (SHORT, 1, 1), 278: (LONG, 1, 64)},
        **{279: (LONG, 1, 4096)},
        **(changes or {}),
    }
    directory = b"".join(
        struct.pack("<HHII", number, *entry) for number, entry in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + tail


def test_the_plain_file_of_these_tests_is_accepted() -> None:
    assert check(tiff()).open().size == (64, 64)


@pytest.mark.parametrize(
    "data",
    [
        tiff(dict.fromkeys(range(40_000, 40_400), (BYTE, 9_000, 100))),
        tiff(dict.fromkeys(range(40_000, 40_000 + MAX_TAGS), (SHORT, 1, 1))),
        tiff({34_000: (LONG, 300_000, 200)}, bytes(2_000_000)),
        tiff({273: (LONG, MAX_PARTS + 1, 200)}, bytes(200_000)),
        tiff(
            {324: (LONG, MAX_PARTS + 1, 200), 322: (LONG, 1, 1), 323: (LONG, 1, 1)}, bytes(90_000)
        ),
    ],
    ids=["shared bytes", "many tags", "many values", "many strips", "many tiles"],
)
def test_costly_directories_are_refused(data: bytes) -> None:
    assert refusal(check, data).reason == "too-costly"


@pytest.mark.parametrize("compression", [6, 34_712, 34_925, 50_000, 50_001, 9999])
def test_rare_kinds_of_compression_are_refused(compression: int) -> None:
    error = refusal(check, tiff({259: (SHORT, 1, compression)}))
    assert error.reason == "unsupported"
    assert "save it with LZW or Deflate" in str(error)


@pytest.mark.parametrize(
    "kind", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "tiff_deflate"]
)
def test_usual_kinds_of_compression_are_accepted(kind: str) -> None:
    image = check(encoded(red(), "TIFF", compression=kind)).open()
    assert np.abs(np.asarray(image, int) - (200, 10, 10)).max() < 4


def test_progressive_jpeg_inside_is_refused() -> None:
    data = encoded(red(), "TIFF", compression="jpeg")
    progressive = data.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc2\0\x11\x08", 1)
    assert progressive != data
    assert refusal(check, progressive).reason == "unsupported"


def test_a_tile_counts_with_its_whole_size() -> None:
    tiles = {322: (LONG, 1, 60_000), 323: (LONG, 1, 60_000), 324: (LONG, 1, 200)}
    checked = check(tiff({259: (SHORT, 1, 8), **tiles}))
    assert checked.unpacked_bytes == checked.working_bytes == 3_600_000_000


def test_a_strip_counts_if_it_is_compressed_and_a_turned_image_counts_twice() -> None:
    strip = check(tiff({259: (SHORT, 1, 8), 278: (LONG, 1, 0xFFFF_FFFF)}))
    assert strip.working_bytes == 64 * 64
    assert check(tiff()).working_bytes == 0
    turned = check(encoded(red(), "TIFF", tiffinfo={0x0112: 6}))
    assert turned.pixel_bytes == 2 * check(encoded(red(), "TIFF")).pixel_bytes


def test_sixteen_bits_need_two_bytes_per_pixel() -> None:
    sixteen = Image.fromarray(np.zeros((8, 8), np.uint16))
    assert check(encoded(sixteen, "TIFF")).pixel_bytes == 2


def test_big_tiff_is_checked_too() -> None:
    data = encoded(grey(), "TIFF", big_tiff=True)
    assert data[:4] == b"II+\0"
    assert (check(data).width, check(data).height) == (90, 80)


@pytest.mark.parametrize("changes", [{256: (LONG, 1, 0)}, {278: (LONG, 1, 0)}, {257: (BYTE, 0, 0)}])
def test_sizes_of_zero_are_called_cut_off(changes: dict[int, Entry]) -> None:
    assert refusal(check, tiff(changes)).reason == "truncated"


def test_many_samples_are_refused() -> None:
    assert refusal(check, tiff({277: (SHORT, 1, 500)})).reason == "unsupported"
