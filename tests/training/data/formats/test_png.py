"""The check of PNG files: chunks, metadata, and the size of the pixels."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.training.data.formats.files import encoded, grey, refusal
from training.data.formats.png import MAX_SMALL_CHUNKS, check


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def with_chunks(chunks: bytes, image: Image.Image | None = None) -> bytes:
    """A PNG with chunks after its header."""
    data = encoded(image or grey(), "PNG")
    return data[:33] + chunks + data[33:]


@pytest.mark.parametrize(
    "chunks",
    [
        (MAX_SMALL_CHUNKS + 10) * chunk(b"IDAT", b""),
        20_000 * chunk(b"tEXt", b"a\0b"),
        20_000 * chunk(b"abCd", b""),
    ],
)
def test_many_small_chunks_are_refused(chunks: bytes) -> None:
    error = refusal(check, with_chunks(chunks))
    assert error.reason == "too-costly"
    assert "chunks" in str(error)


def test_pillow_sees_no_text_no_profile_and_no_animation() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 100, zip=True)
    text.add_itxt("c", "d", zip=True)
    others = [grey(value=value) for value in (1, 2)]
    data = encoded(
        grey(), "PNG", pnginfo=text, icc_profile=b"x" * 500, save_all=True, append_images=others
    )
    image = check(data).open()
    assert set(image.info) <= {"transparency"}
    assert getattr(image, "n_frames", 1) == 1
    np.testing.assert_array_equal(image, np.asarray(grey()))


@pytest.mark.parametrize(
    "chunks",
    [
        60 * chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(50_000_000))),
    ],
)
def test_compressed_metadata_is_not_unpacked_and_the_image_is_read(chunks: bytes) -> None:
    image = check(with_chunks(chunks)).open()
    np.testing.assert_array_equal(image, np.asarray(grey()))


def test_the_size_of_the_pixels_is_that_of_the_header() -> None:
    assert check(encoded(grey(1000, 10), "PNG")).unpacked_bytes == 10 * 1001
    sixteen = Image.fromarray(np.zeros((10, 1000), np.uint16))
    assert check(encoded(sixteen, "PNG")).unpacked_bytes == 10 * 2001
    assert check(encoded(Image.new("1", (1000, 10)), "PNG")).unpacked_bytes == 10 * 126


def exif(orientation: int) -> bytes:
    values = Image.Exif()
    values[0x0112] = orientation
    return values.tobytes()


def test_the_orientation_is_found_in_each_kind_of_metadata() -> None:
    hexadecimal = b"\nexif\n%8d\n" % len(exif(6)) + exif(6).hex().encode() + b"\n"
    xmp = b'<x tiff:Orientation="6"/>'
    for chunks in (
        chunk(b"eXIf", exif(6)[6:]),
        chunk(b"tEXt", b"Raw profile type exif\0" + hexadecimal),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexadecimal)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        assert check(with_chunks(chunks)).orientation == 6
        rubbish = chunks[:12] + bytes(len(chunks) - 12)
        assert check(with_chunks(rubbish)).orientation == 1


def test_a_header_that_is_not_the_first_chunk_or_has_unknown_colours_is_damaged() -> None:
    data = encoded(grey(), "PNG")
    assert refusal(check, data[:8] + chunk(b"tEXt", b"a\0b") + data[8:]).reason == "truncated"
    assert refusal(check, data[:25] + b"\5" + data[26:]).reason == "truncated"
