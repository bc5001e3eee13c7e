"""Append new items or copies of rows to the growing files of an index."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from indexer.array_types import Rows
from indexer.storage.growing_files import GrowingFile
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.records import RECORD, ItemBytes, find_damage, hash_of, sealed
from training.network.model import NUM_FEATURES


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """An image to add."""

    path: str
    label: str | None
    sha256: str
    """SHA-256 of the image file, in hexadecimal."""
    width: int
    """In pixels. Width and height are those of the upright image."""
    height: int
    thumbnail: bytes
    """JPEG."""
    feature: npt.NDArray[np.float32]
    """(4096,) float32."""
    stamp: int = 0
    """Hash of the file's size, times and inode; 0 if the hash is unknown. If a file still has the
    same stamp, it was not touched."""


def append_item(files: Mapping[str, GrowingFile], item: NewItem, id: int) -> None:
    """Append an item as the next row."""
    assert item.feature.shape == (NUM_FEATURES,)
    feature = np.ascontiguousarray(item.feature, "<f4").tobytes()
    path, label = item.path.encode(), (item.label or "").encode()
    item_bytes = ItemBytes(feature, path + label, item.thumbnail)
    record = np.zeros((), RECORD)
    record["id"] = id
    record["sha256"] = np.frombuffer(bytes.fromhex(item.sha256), np.uint8)
    record["path_hash"] = hash_of(item.path)
    record["label_hash"] = 0 if item.label is None else hash_of(item.label)
    record["path_bytes"], record["label_bytes"] = len(path), len(label)
    record["thumbnail_bytes"] = len(item.thumbnail)
    record["width"], record["height"], record["stamp"] = item.width, item.height, item.stamp
    record["norm"] = np.linalg.norm(item.feature)
    record["added_at"] = int(datetime.now(UTC).timestamp())
    record["feature_crc32"] = zlib.crc32(feature)
    record["text_crc32"] = zlib.crc32(item_bytes.text)
    record["thumbnail_crc32"] = zlib.crc32(item.thumbnail)
    _append(files, record, item_bytes)


def append_copies(files: Mapping[str, GrowingFile], index: Index, rows: Rows) -> None:
    """Append copies of an index's rows; raises IndexDirectoryError if a row is damaged."""
    for row in rows:
        record, item_bytes = index.records[row], index.item_bytes(row)
        if damage := find_damage(record, item_bytes):
            raise IndexDirectoryError(
                f"the {damage[0]} of item {record['id']} in {index.directory} is damaged, "
                "so nothing was changed; "
                f"to see what is damaged, run: lookalike index verify {index.directory}"
            )
        _append(files, index.records[row : row + 1].copy().reshape(()), item_bytes)


def _append(
    files: Mapping[str, GrowingFile], record: npt.NDArray[np.void], item_bytes: ItemBytes
) -> None:
    """Set the byte offsets in a record (), then append the record and its bytes."""
    record["text_at"] = files["texts"].num_bytes
    record["thumbnail_at"] = files["thumbnails"].num_bytes
    files["features"].append(item_bytes.feature)
    files["texts"].append(item_bytes.text)
    files["thumbnails"].append(item_bytes.thumbnail)
    files["records"].append(sealed(record))
