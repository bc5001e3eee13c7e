"""The check of WebP files: the canvas and the chunks."""

import struct

import pytest
from PIL import Image

from tests.training.data.formats.files import encoded, red, refusal
from training.data.formats.webp import MAX_CHUNKS, check, is_webp


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0rubbish"}])
def test_the_size_is_read_from_every_kind_of_header(options: dict[str, object]) -> None:
    data = encoded(red(91, 83), "WEBP", **options)
    checked = check(data)
    assert is_webp(data)
    assert (checked.width, checked.height) == (91, 83) == checked.open().size


@pytest.mark.parametrize("kind", [b"ANMF", b"abcd", b"XMP "])
def test_many_chunks_are_refused(kind: bytes) -> None:
    data = encoded(red(), "WEBP")
    assert refusal(check, riff(data[12:] + chunk(kind, b"") * MAX_CHUNKS)).reason == "too-costly"


def test_the_orientation_is_found_in_exif_and_xmp() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert check(encoded(red(), "WEBP", exif=exif.tobytes())).orientation == 6
    assert check(encoded(red(), "WEBP", xmp=b'<x tiff:Orientation="8"/>')).orientation == 8
    assert check(encoded(red(), "WEBP")).orientation == 1


def test_the_first_chunk_must_be_an_image() -> None:
    assert refusal(check, riff(chunk(b"abcd", bytes(40)))).reason == "truncated"


def test_a_frame_larger_than_the_canvas_is_refused_by_the_decoder() -> None:
    image = encoded(red(4000, 4000), "WEBP", lossless=True)[12:]
    lying = riff(chunk(b"VP8X", bytes(4) + b"\x09\0\0" + b"\x09\0\0") + image)
    assert (check(lying).width, check(lying).height) == (10, 10)
    with pytest.raises(OSError, match=r".+"):
        check(lying).open()
