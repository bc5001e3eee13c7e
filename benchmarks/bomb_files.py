"""Image files that are small but costly to decode. The program makes all of them itself."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

SIDE = 7071
"""A square of this side has 49,999,041 pixels, just below the limit of 50,000,000."""


@dataclass(frozen=True)
class Bomb:
    """A costly file."""

    format: str
    attack: str
    make: Callable[[], bytes]
    is_refused: bool
    """Whether the file must be refused. Otherwise it must be answered."""


def bombs() -> Iterator[Bomb]:
    """All bombs. A file is made only when `make` is called, because some take seconds."""
    yield from _of("JPEG", JPEG)
    yield from _of("PNG", PNG)
    yield from _of("BMP", BMP)
    yield from _of("PNM", PNM)
    yield from _of("GIF", GIF)
    yield from _of("TIFF", TIFF)
    yield from _of("WebP", WEBP)
    yield from _of("AVIF", AVIF)


Attacks = dict[str, tuple[Callable[[], bytes], bool]]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def flat(width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def progressive(width: int, height: int, num_scans: int) -> bytes:
    """A progressive JPEG of one colour whose last scan is repeated."""
    data = encoded(flat(width, height), "JPEG", quality=50, progressive=True, subsampling=0)
    last = data[data.rindex(b"\xff\xda") : -2]
    num_more = max(0, num_scans - data.count(b"\xff\xda"))
    return data[:-2] + num_more * last + data[-2:]


def jpeg_segments(count: int) -> bytes:
    """A JPEG with many short EXIF segments, which Pillow joins one by one."""
    data = encoded(flat(64, 64), "JPEG")
    return data[:2] + count * b"\xff\xe1\x00\x09Exif\0\0\0" + data[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(
    width: int, height: int, depth: int, colours: int, extra: bytes = b"", line_filter: int = 4
) -> bytes:
    """A PNG of one colour. `colours` is the colour type, `extra` stands before the pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    line = bytes([line_filter]) + bytes(-(-width * depth * channels // 8))
    packer = zlib.compressobj(1)
    packed = b"".join([packer.compress(line) for _ in range(height)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", packed),
            chunk(b"IEND", b""),
        )
    )


def bmp(width: int, height: int, compression: int, pixels: bytes, depth: int = 8) -> bytes:
    palette = bytes(range(256)) * 4 if depth == 8 else bytes(4 << depth)
    sizes = 14 + 40 + len(palette)
    return b"".join(
        (
            struct.pack("<2sIHHI", b"BM", sizes + len(pixels), 0, 0, sizes),
            struct.pack(
                "<IiiHHIIiiII", *(40, width, height, 1, depth, compression, len(pixels), 0, 0, 0, 0)
            ),
            palette,
            pixels,
        )
    )


def gif(extensions: bytes = b"", frames: int = 1, side: int = 64) -> bytes:
    """A GIF with extensions before its first frame."""
    data = encoded(flat(side, side, "L"), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)  # after the table of colours
    return data[:start] + extensions + frames * data[start:-1] + data[-1:]


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"", start: int = 0) -> bytes:
    """A TIFF of these tags: number, type, count, and value or offset. The tags are sorted."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"".join(
        (
            struct.pack("<2sHI", b"II", 42, 8),
            struct.pack("<H", len(entries)),
            directory,
            struct.pack("<I", 0),
            tail,
        )
    )


def tiff_grey(width: int, height: int, **tags: tuple[int, int, int]) -> bytes:
    """A grey TIFF in one strip. `tags` replace or add entries: t273=(type, count, value)."""
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 200),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, width * height),
    } | {int(name[1:]): entry for name, entry in tags.items()}
    listed = [(number, *entry) for number, entry in entries.items()]
    return tiff(listed, bytes(10_000))


def avif_declaring(width: int, height: int, side: int) -> bytes:
    """An AVIF of `side` x `side` pixels whose container states another size."""
    data = encoded(flat(side, side), "AVIF", speed=10)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def _shared_tags() -> bytes:
    many = {f"t{40_000 + number}": (1, 9_000, 100) for number in range(400)}
    return tiff_grey(64, 64, **many)


def _webp_frames(count: int) -> bytes:
    one = [flat(16, 16), noise(16, 16)]
    data = encoded(one[0], "WEBP", save_all=True, append_images=one[1:], duration=10)
    start = data.index(b"ANMF")
    body = data[12:start] + count * data[start : start + 8 + data[start + 4] + data[start + 4] % 2]
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


_COMMENTS = b"P3\n2000 2000\n255\n" + b"#\n0 " * 700_000
_TEXT = zlib.compress(bytes(1_000_000), 9)

JPEG: Attacks = {
    "150 progressive scans": (lambda: progressive(7000, 7000, 150), True),
    "the most scans that are accepted": (lambda: progressive(4900, 4900, 29), False),
    "progressive, 49 megapixels, full colour": (lambda: progressive(7000, 7000, 0), True),
    "progressive, noise, 25 megapixels": (
        lambda: encoded(noise(5000, 5000), "JPEG", quality=40, progressive=True),
        False,
    ),
    "65,000 x 760, too narrow to shrink": (lambda: encoded(flat(65_000, 760), "JPEG"), False),
    "1,000,000 short EXIF segments": (lambda: jpeg_segments(1_000_000), True),
}
PNG: Attacks = {
    "16-bit grey, 50 megapixels": (lambda: png(SIDE, SIDE, 16, 0), False),
    "RGBA, 50 megapixels": (lambda: png(SIDE, SIDE - 1, 8, 6), False),
    "RGBA, 50,000 x 1,000": (lambda: png(50_000, 999, 8, 6), False),
    "palette with transparency, 50 megapixels": (
        lambda: png(SIDE, SIDE, 8, 3, chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256))),
        False,
    ),
    "16-bit RGBA, 50 megapixels": (lambda: png(SIDE, SIDE, 16, 6), True),
    "1,000,000 empty chunks": (lambda: png(64, 64, 8, 0, 1_000_000 * chunk(b"IDAT", b"")), True),
    "60 compressed texts of 1 MB": (
        lambda: png(64, 64, 8, 0, 60 * chunk(b"zTXt", b"a\0\0" + _TEXT)),
        False,
    ),
    "a compressed colour profile of 1 MB": (
        lambda: png(64, 64, 8, 0, chunk(b"iCCP", b"a\0\0" + _TEXT)),
        False,
    ),
}
BMP: Attacks = {
    "RLE8, 50,000,000 x 1": (lambda: bmp(50_000_000, 1, 1, b"\xff\x01" * 50), True),
    "RLE8, moves only": (lambda: bmp(7000, 7000, 1, b"\0\2\1\1" * 7000 + b"\0\1"), True),
    "RLE4, 7,000 x 7,000": (lambda: bmp(7000, 7000, 2, b"\xff\x11" * 500, 4), True),
    "1 bit per pixel, 50 megapixels": (
        lambda: encoded(flat(mode="1"), "BMP"),
        False,
    ),
}
PNM: Attacks = {
    "plain, with comments": (lambda: _COMMENTS, True),
    "plain, 4 megapixels": (lambda: b"P2\n2000 2000\n255\n" + b"7 " * 4_000_000, True),
    "a header of 2 MB": (lambda: b"P5\n#" + b"x" * 2_000_000 + b"\n8 8\n255\n" + bytes(64), True),
    "an unusual maximum, 6 megapixels": (
        lambda: b"P6\n3000 2000\n254\n" + bytes(18_000_000),
        False,
    ),
}
GIF: Attacks = {
    "50 megapixels": (lambda: encoded(flat(mode="L"), "GIF"), False),
    "1,000,000 comments": (lambda: gif(b"\x21\xfe\x01a\0" * 1_000_000), True),
    "100,000 frames": (lambda: gif(frames=100_000), False),
}
TIFF: Attacks = {
    "LZW, RGBA, 50 megapixels": (
        lambda: encoded(flat(SIDE, SIDE - 1, "RGBA"), "TIFF", compression="tiff_lzw"),
        False,
    ),
    "Deflate, 16-bit, one strip of 50 megapixels": (
        lambda: encoded(
            flat(mode="I;16"), "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: SIDE}
        ),
        False,
    ),
    "1,000,000 strips": (
        lambda: tiff_grey(64, 64, t273=(4, 1_000_000, 200)) + bytes(4_000_000),
        True,
    ),
    "400 tags with the same bytes": (_shared_tags, True),
    "tiles of 60,000 x 60,000": (
        lambda: tiff_grey(
            64, 64, t259=(3, 1, 8), t322=(4, 1, 60_000), t323=(4, 1, 60_000), t324=(4, 1, 200)
        ),
        True,
    ),
}
WEBP: Attacks = {
    "lossless, 50 megapixels": (lambda: encoded(flat(), "WEBP", lossless=True, method=0), True),
    "lossless, 12 megapixels": (
        lambda: encoded(flat(3500, 3500), "WEBP", lossless=True, method=0),
        False,
    ),
    "lossy noise, 11 megapixels": (
        lambda: encoded(noise(3300, 3300), "WEBP", quality=80, method=0),
        False,
    ),
    "100,000 frames": (lambda: _webp_frames(100_000), True),
}
AVIF: Attacks = {
    "50 megapixels": (lambda: encoded(flat(), "AVIF", speed=10), True),
    "14 megapixels": (lambda: encoded(flat(3800, 3800), "AVIF", speed=10), False),
    "noise, 9 megapixels": (
        lambda: encoded(noise(3000, 3000), "AVIF", speed=10, quality=85),
        False,
    ),
    "50 megapixels that say 100 x 100": (lambda: avif_declaring(100, 100, SIDE), True),
}


def _of(kind: str, attacks: Attacks) -> Iterator[Bomb]:
    for attack, (make, is_refused) in attacks.items():
        yield Bomb(kind, attack, make, is_refused)
