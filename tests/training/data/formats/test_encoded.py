"""A file in several parts reads like one piece of memory."""

import io
import random

import pytest
from PIL import BmpImagePlugin

from tests.training.data.formats.files import encoded, red
from training.data.formats import encoded as module
from training.data.formats.encoded import Encoded, PartsFile

PARTS = [b"abc", b"", b"d", bytes(range(50)), b"", b"end"]


def test_any_sequence_of_reads_and_seeks_gives_the_bytes_of_one_piece() -> None:
    rng = random.Random(0)
    one, parts = io.BytesIO(b"".join(PARTS)), PartsFile(PARTS)
    for _ in range(500):
        size = rng.choice([-1, 0, 1, 2, 7, 100, None])
        assert parts.read(size) == one.read(size)
        assert parts.tell() == one.tell()
        whence = rng.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
        offset = rng.randint(0, 70) if whence == io.SEEK_SET else rng.randint(-9, 9)
        if whence == io.SEEK_CUR:
            offset = max(offset, -one.tell())
        assert parts.seek(offset, whence) == one.seek(offset, whence)
    assert parts.readable()
    assert parts.seekable()


def test_nothing_is_read_from_no_parts() -> None:
    assert PartsFile([]).read() == b""


def test_a_small_and_a_large_file_have_the_same_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(red(), "BMP")
    file = Encoded(
        BmpImagePlugin.BmpImageFile, [data[:20], memoryview(data)[20:]], 90, 80, pixel_bytes=4
    )
    small = file.open().tobytes()
    monkeypatch.setattr(module, "MAX_COPIED_BYTES", 0)
    assert file.open().tobytes() == small == red().tobytes()
