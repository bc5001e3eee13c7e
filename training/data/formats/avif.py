"""Check an AVIF (ISO/IEC 14496-12 and 23008-12): its boxes, its items, the size of its frames."""

import struct
from collections.abc import Iterator

from PIL import AvifImagePlugin

from training.data.formats.av1 import decoded_pixels
from training.data.formats.encoded import Encoded
from training.data.image_errors import ImageError, damaged_header, too_costly

MAX_BOXES = 1000
MAX_ITEMS = 1000
"""Maximum number of items. A grid has one item per cell."""
MAX_EXIF_BYTES = 262_144
MAX_SURPLUS = 3
"""The decoder may compute at most this number of pixels per pixel of the image. Transparency is a
second image, and a thumbnail is a third."""
SMALL_PIXELS = 1_000_000
"""Further pixels that the decoder may compute: thumbnails, and cells at the edge of a grid."""
FRAME_BYTES, IMAGE_BYTES = 8, 8
"""Memory per pixel that the decoder computes, with 16 bits per sample, and per pixel of the image:
Pillow's copy and its image."""

# The images are decoded in one thread per core already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

Box = tuple[bytes, int, int]
"""The type of a box, and the start and the end of its content."""


def is_avif(data: bytes) -> bool:
    """Whether the first box has a brand of AVIF."""
    length = int.from_bytes(data[:4], "big")
    brands = data[8 : min(length, 256)]
    return data[4:8] == b"ftyp" and any(
        brands[start : start + 4] in (b"avif", b"avis") for start in range(0, len(brands), 4)
    )


def check(data: bytes) -> Encoded:
    """Check an AVIF. Of an animation, the still image is used."""
    budget = iter(range(MAX_BOXES))
    top = list(_boxes(data, 0, len(data), budget))
    if (meta := _find(top, b"meta")) is None:
        if _find(top, b"moov") is None:
            raise damaged_header()
        raise ImageError(
            "unsupported", "this AVIF has no still image; save one frame of it as an image"
        )
    inner = list(_boxes(data, meta[1] + 4, meta[2], budget))
    width, height = _declared_size(data, inner, budget)
    num_pixels = _check_items(data, inner)
    if num_pixels > MAX_SURPLUS * width * height + SMALL_PIXELS:
        raise too_costly(
            f"the AVIF says that it has {width} x {height} pixels, "
            f"but its images have {num_pixels:,}"
        )
    parts: list[bytes | memoryview] = [data]
    has_other_brand = data[8:12] != b"avif"
    if has_other_brand:  # with another main brand, the decoder reads the animation
        parts = [data[:8] + b"avif" + data[12:]]
    return Encoded(
        AvifImagePlugin.AvifImageFile,
        parts,
        width,
        height,
        pixel_bytes=IMAGE_BYTES,
        working_bytes=FRAME_BYTES * max(num_pixels, width * height)
        + len(data) * (2 if has_other_brand else 1),
    )


def _boxes(data: bytes, start: int, end: int, budget: Iterator[int]) -> Iterator[Box]:
    while start + 8 <= end:
        if next(budget, None) is None:
            raise too_costly(f"the AVIF has more than {MAX_BOXES:,} boxes")
        length, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + length if length else end
        if stop < content:
            raise damaged_header()
        yield kind, content, min(stop, end)
        start = stop


def _find(boxes: list[Box], kind: bytes) -> Box | None:
    return next((box for box in boxes if box[0] == kind), None)


def _declared_size(data: bytes, inner: list[Box], budget: Iterator[int]) -> tuple[int, int]:
    """The largest size among the properties `ispe`: the size of the image or of its grid."""
    properties = _find(inner, b"iprp")
    container = properties and _find(list(_boxes(data, *properties[1:], budget)), b"ipco")
    sizes = [
        struct.unpack_from(">II", data, start + 4)
        for kind, start, _ in (_boxes(data, *container[1:], budget) if container else ())
        if kind == b"ispe"
    ]
    if not sizes:
        raise damaged_header()
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return int(width), int(height)


def _check_items(data: bytes, inner: list[Box]) -> int:
    """Check all items. Return the number of pixels that the decoder computes for them together."""
    kinds, idat = _item_kinds(data, inner), _find(inner, b"idat")
    num_pixels, total_bytes = 0, 0
    for number, is_inside, extents in _item_places(data, inner):
        base = idat[1] if is_inside and idat else 0
        total_bytes += sum(length for _, length in extents)
        if any(base + offset + length > len(data) for offset, length in extents):
            raise damaged_header()
        if total_bytes > len(data):
            raise too_costly("the items of the AVIF have more bytes than the file")
        kind = kinds.get(number)
        if kind == b"Exif" and sum(length for _, length in extents) > MAX_EXIF_BYTES:
            raise too_costly(f"the AVIF has more than {MAX_EXIF_BYTES:,} bytes of EXIF metadata")
        if kind == b"av01":
            content = b"".join(
                data[base + offset : base + offset + length] for offset, length in extents
            )
            num_pixels += decoded_pixels(content)
    return num_pixels


def _item_kinds(data: bytes, inner: list[Box]) -> dict[int, bytes]:
    """The type of each item, from the box `iinf`."""
    box = _find(inner, b"iinf")
    if box is None:
        raise damaged_header()
    start = box[1] + (6 if data[box[1]] == 0 else 8)
    kinds = {}
    for _, at, _ in _boxes(data, start, box[2], iter(range(MAX_ITEMS))):
        form = ">HH4s" if data[at] < 3 else ">IH4s"
        number, _, kind = struct.unpack_from(form, data, at + 4)
        kinds[number] = kind
    return kinds


def _item_places(
    data: bytes, inner: list[Box]
) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """The number of each item, whether it lies in the box `idat`, and its extents.

    An extent is an offset and a length.
    """
    box = _find(inner, b"iloc")
    if box is None:
        raise damaged_header()
    at, version = box[1] + 4, data[box[1]]
    sizes = [data[at] >> 4, data[at] & 15, data[at + 1] >> 4, data[at + 1] & 15]
    offset_bytes, length_bytes, base_bytes, index_bytes = sizes
    if version == 0:
        index_bytes = 0
    at += 2

    def read(num_bytes: int) -> int:
        nonlocal at
        at += num_bytes
        if at > box[2]:
            raise damaged_header()
        return int.from_bytes(data[at - num_bytes : at], "big")

    num_items = read(4 if version == 2 else 2)
    if num_items > MAX_ITEMS:
        raise too_costly(f"the AVIF has more than {MAX_ITEMS:,} items")
    left = 4 * MAX_ITEMS
    for _ in range(num_items):
        number = read(4 if version == 2 else 2)
        is_inside = version > 0 and read(2) & 15 == 1
        read(2)
        base, extents = read(base_bytes), []
        for _ in range(read(2)):
            left -= 1
            if left < 0:
                raise too_costly("the items of the AVIF have too many parts")
            read(index_bytes)
            offset, length = base + read(offset_bytes), read(length_bytes)
            extents.append((offset, length or len(data) - offset))
        yield number, is_inside, extents
