"""The growing files of an index, and the record of each row.

A record has a fixed size. It says where the bytes of an item lie in the growing files.

records-0.bin      one RECORD per row, in the order of addition
features-0.f32     4096 little-endian float32 per row
texts-0.utf8       the path and then the label of each row
thumbnails-0.jpeg  one JPEG per row
removed-0.u64      the rows of removed items
codes-7.bin        one binary code per row, if the index has an encoder (see codes.py)

The number in a file name is the generation. `index compact` writes the next generation, without the
removed items. The name of a codes file contains a commit number instead, because each encoder needs
a file of its own. It is the first commit that uses the file.
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
"""The suffix of each kind of growing file."""
FEATURE_BYTES = 4 * NUM_FEATURES

RECORD = np.dtype(
    [
        ("id", "<u8"),  # not used again after the item is removed
        ("sha256", "u1", 32),  # of the image file's bytes
        ("path_hash", "<u8"),
        ("label_hash", "<u8"),  # 0: no label
        ("text_at", "<u8"),  # byte offset of the path in the texts file
        ("path_bytes", "<u4"),
        ("label_bytes", "<u4"),
        ("thumbnail_at", "<u8"),  # byte offset of the thumbnail in its file
        ("thumbnail_bytes", "<u4"),
        ("width", "<u4"),  # pixels, of the upright image
        ("height", "<u4"),
        ("norm", "<f4"),  # Euclidean length of the feature
        ("added_at", "<i8"),  # seconds since 1970, UTC
        ("stamp", "<u8"),  # hash of the image file's size, times and inode; 0: unknown
        ("feature_crc32", "<u4"),
        ("thumbnail_crc32", "<u4"),
        ("text_crc32", "<u4"),
        ("record_crc32", "<u4"),  # of all fields above
    ]
)
CRC_BYTES = 4


class ItemBytes(NamedTuple):
    """The bytes of an item in the growing files, except its record."""

    feature: bytes
    text: bytes
    thumbnail: bytes


def file_name(kind: str, number: int) -> str:
    """The name of a new growing file, such as `features-0.f32` for the features of generation 0.

    The names of existing files are in the manifest.
    """
    return f"{kind}-{number}.{GROWING_FILES[kind]}"


def hash_of(text: str) -> int:
    """A 64-bit hash of a path or a label, never 0.

    Different texts can have the same hash, so callers must also compare the texts.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1


def sealed(record: npt.NDArray[np.void]) -> bytes:
    """Set the checksum of a record (), and return the bytes of the record."""
    record["record_crc32"] = zlib.crc32(record.tobytes()[:-CRC_BYTES])
    return record.tobytes()


def find_damage(record: np.void, item_bytes: ItemBytes) -> list[str]:
    """Return the names of the parts of an item that do not match their checksums.

    The names are record, feature, path and thumbnail.
    """
    checks = {
        "record": (record.tobytes()[:-CRC_BYTES], "record_crc32"),
        "feature": (item_bytes.feature, "feature_crc32"),
        "path": (item_bytes.text, "text_crc32"),
        "thumbnail": (item_bytes.thumbnail, "thumbnail_crc32"),
    }
    return [name for name, (content, crc) in checks.items() if zlib.crc32(content) != record[crc]]
