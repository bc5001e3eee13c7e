"""The files that an index grows by, and the fixed-size record by which an item finds its share of each.

records-0.bin      a RECORD an item, in the order of addition; an item's place here is its *row*
features-0.f32     4096 little-endian float32 a row
texts-0.utf8       path, then label, of each row
thumbnails-0.jpeg  a JPEG a row
removed-0.u64      the rows of removed items
codes-7.bin        once the index has an encoder: a binary code a row (see codes.py)

The number is the generation: `index compact` writes the next one, without what was removed. Of codes it is the commit that began them:
those of another encoder are another file.
"""

import hashlib
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.network.model import NUM_FEATURES

CODES = "codes"
GROWING_FILES = {
    "records": "bin",
    "features": "f32",
    "texts": "utf8",
    "thumbnails": "jpeg",
    "removed": "u64",
    CODES: "bin",
}
ROW_BYTES = 4 * NUM_FEATURES

RECORD = np.dtype(
    [
        ("id", "<u8"),  # never used again
        ("sha256", "u1", 32),  # of the image file's bytes
        ("path_hash", "<u8"),
        ("label_hash", "<u8"),  # 0: no label
        ("text_at", "<u8"),
        ("path_bytes", "<u4"),
        ("label_bytes", "<u4"),
        ("thumbnail_at", "<u8"),
        ("thumbnail_bytes", "<u4"),
        ("width", "<u4"),  # pixels, upright
        ("height", "<u4"),
        ("norm", "<f4"),  # of the feature, Euclidean
        ("added_at", "<i8"),  # seconds since 1970, UTC
        ("stamp", "<u8"),  # of the file's size and times; 0: unknown
        ("feature_crc32", "<u4"),
        ("thumbnail_crc32", "<u4"),
        ("text_crc32", "<u4"),
        ("record_crc32", "<u4"),  # of all the above
    ]
)
CRC_BYTES = 4


class Parts(NamedTuple):
    """An item's bytes in the growing files, its record's apart."""

    feature: bytes
    text: bytes
    thumbnail: bytes


def file_name(kind: str, number: int) -> str:
    """How a new file is called: `features-0.f32` for features of generation 0. The manifest says it of those there are."""
    return f"{kind}-{number}.{GROWING_FILES[kind]}"


def hash_of(text: str) -> int:
    """64 bits of a path or label, never 0: equal ones are found by it, and then compared."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1


def sealed(record: npt.NDArray[np.void]) -> bytes:
    """The bytes of a record (), its own CRC set."""
    record["record_crc32"] = zlib.crc32(record.tobytes()[:-CRC_BYTES])
    return record.tobytes()


def damaged_parts(record: np.void, parts: Parts) -> list[str]:
    """Which of an item's record, feature, text and thumbnail are not the bytes that were written."""
    checks = {
        "record": (record.tobytes()[:-CRC_BYTES], "record_crc32"),
        "feature": (parts.feature, "feature_crc32"),
        "path": (parts.text, "text_crc32"),
        "thumbnail": (parts.thumbnail, "thumbnail_crc32"),
    }
    return [name for name, (content, crc) in checks.items() if zlib.crc32(content) != record[crc]]
