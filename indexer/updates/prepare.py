"""Prepare examples for an index.

An unchanged image needs no work. If the index has the bytes of an image already, the feature of
these bytes is copied. All other images go through the network.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.array_types import Floats
from indexer.storage.index import Index
from indexer.storage.records import find_damage
from indexer.storage.row_writing import NewItem
from indexer.storage.stamps import Stamps
from training.data.examples import Example
from training.data.images import (
    MAX_PIXELS,
    Checked,
    ImageError,
    Pixels,
    open_picture,
    read_bytes,
    to_square,
    to_thumbnail,
)
from training.data.skipped import Skipped

RACY_S = 2.0
"""A file that changed less than this number of seconds ago gets no stamp. If it changes again, its
times may stay the same, because their resolution is limited."""


@dataclass(frozen=True)
class Unchanged:
    """An image that is in the index already.

    If the file had to be read, and an item has its bytes, path and label, then `id` is the id of
    this item and `stamp` is the new stamp of the file.
    """

    id: int | None = None
    stamp: int = 0


@dataclass(frozen=True)
class Decoded:
    """An image ready for the network."""

    example: Example
    sha256: str
    stamp: int
    square: Pixels
    thumbnail: bytes
    width: int
    height: int

    def with_feature(self, feature: Floats) -> NewItem:
        """The item of this image, with the feature (4096,) from the network."""
        return NewItem(
            path=self.example.path,
            label=self.example.label,
            sha256=self.sha256,
            width=self.width,
            height=self.height,
            thumbnail=self.thumbnail,
            feature=feature,
            stamp=self.stamp,
        )


PreparedItem = Unchanged | Skipped | NewItem


@dataclass(frozen=True)
class Preparation:
    """Prepares examples for an index. Safe to use from several threads."""

    index: Index
    stamps: Stamps
    image_size: int
    """Side of the network's square, in pixels."""
    keeps_copies: bool
    """Whether an image is added if the index has the same bytes under another path."""

    def prepare(self, example: Example) -> Decoded | PreparedItem:
        """Read and decode an example, if that is needed.

        A file that was not touched is not read, unless its label has changed. If an undamaged row
        has the same bytes, under this path or another path, the image is not decoded.
        """
        stamp = file_stamp(example)
        own_rows = self.index.rows_of_path(example.path)
        for row in own_rows:
            is_untouched = stamp and stamp == self.stamps[row]
            if is_untouched and self.index.text(row)[1] == example.label:
                return Unchanged()
        try:
            content = (
                example.source if isinstance(example.source, bytes) else read_bytes(example.source)
            )
            sha256 = hashlib.sha256(content).hexdigest()
            rows = self.index.rows_of_content(sha256)
            for row in rows:
                if self.index.text(row) == (example.path, example.label):
                    return Unchanged(int(self.index.records["id"][row]), stamp)
            if len(rows) and not len(own_rows) and not self.keeps_copies:
                return Unchanged()
            for row in rows:
                if copy := self._copied(int(row), example, stamp):
                    return copy
            return decode(content, example, sha256, stamp=stamp, image_size=self.image_size)
        except ImageError as error:
            return Skipped(example.path, str(error))

    def _copied(self, row: int, example: Example, stamp: int) -> NewItem | None:
        """A new item with the feature of a row that has the same bytes; None if it is damaged."""
        record, item_bytes = self.index.records[row], self.index.item_bytes(row)
        if find_damage(record, item_bytes):
            return None
        return NewItem(
            path=example.path,
            label=example.label,
            sha256=record["sha256"].tobytes().hex(),
            width=int(record["width"]),
            height=int(record["height"]),
            thumbnail=item_bytes.thumbnail,
            feature=self.index.features[row],
            stamp=stamp,
        )


def decode(
    content: bytes | Checked,
    example: Example,
    sha256: str,
    *,
    image_size: int,
    stamp: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode the bytes of an example for a network with this image size; raises ImageError.

    If the bytes were checked for this image size already, pass the result of the check.
    """
    picture = open_picture(content, size=image_size, max_pixels=max_pixels)
    return Decoded(
        example=example,
        sha256=sha256,
        stamp=stamp,
        square=to_square(picture, image_size),
        thumbnail=to_thumbnail(picture),
        width=picture.width,
        height=picture.height,
    )


def find_repeated_path(examples: Sequence[Example]) -> str | None:
    """The first path that two examples have in common; None if all paths differ."""
    seen: set[str] = set()
    for example in examples:
        if example.path in seen:
            return example.path
        seen.add(example.path)
    return None


def file_stamp(example: Example) -> int:
    """A 64-bit hash of a file's size, times and inode. It changes when the file changes.

    Returns 0 if the file's times might not show its next change, or if there is no file.
    """
    source = example.source
    if isinstance(source, bytes):
        return 0
    # The stamp of a member of a tar file also depends on its position in the tar file.
    file, member = (source, "") if isinstance(source, Path) else (source.file, str(source))
    try:
        status = file.stat()
    except (OSError, ValueError):
        return 0
    if time.time() - max(status.st_mtime, status.st_ctime) < RACY_S:
        return 0
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    facts = f"{status.st_size} {times} {status.st_ino} {member}"
    return int.from_bytes(hashlib.sha256(os.fsencode(facts)).digest()[:8], "little")
