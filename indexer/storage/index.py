"""Read an index directory.

A reader sees one complete commit, even if a writer changes the index in the meantime.

manifest.json           the commit: the committed length of each growing file, and all checksums
copy/manifest.json      a copy, in case the manifest is damaged
records, features, texts, thumbnails, removed, codes    the growing files (see records.py)
model/                  a copy of the model, so that queries need no other model directory
*.faiss, ...            artefacts: files that are written once (see manifest.py)

Readers take no lock and write nothing, so they work on a read-only volume. Rows are only appended.
If a writer is killed, the bytes that it did not commit can be cut off.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes, Rows
from indexer.metrics import METRICS
from indexer.storage.manifest import (
    PROBE,
    REBUILD,
    IndexDirectoryError,
    Manifest,
    read_manifest,
    read_manifest_or_copy,
)
from indexer.storage.memory_maps import map_codes, map_extent, whole_rows
from indexer.storage.records import CODES, FEATURE_BYTES, RECORD, ItemBytes, hash_of
from indexer.storage.row_lookup import RowLookup
from indexer.storage.stats import CodeStats, IndexStats
from training.naming import natural_key
from training.network.model import NUM_FEATURES

Labels = str | Sequence[str]
"""A label, or several labels. Several labels mean the items that have any of them."""


@dataclass(frozen=True)
class Item:
    """An indexed image."""

    id: int
    path: str
    label: str | None
    width: int
    """In pixels. Width and height are those of the upright image."""
    height: int
    sha256: str
    """SHA-256 of the image file, in hexadecimal."""
    added_at: str
    """ISO 8601, UTC."""


class Index:
    """A reader of one commit. Safe to use from several threads."""

    def __init__(self, directory: Path, manifest: Manifest, *, is_whole: bool = True):
        """Map the files of a commit. Raises IndexDirectoryError if a file is missing or too short.

        With `is_whole=False`, missing files and bytes are allowed.
        """
        self.directory, self.manifest = directory, manifest
        verify = f"to see what is lost, run: lookalike index verify {directory}"
        remedy = f"{REBUILD}; {verify}" if is_whole else None
        mapped = {
            kind: map_extent(directory, extent, remedy)
            for kind, extent in manifest.files.items()
            if kind != CODES
        }
        records = whole_rows(mapped["records"], RECORD.itemsize)
        self.records: npt.NDArray[Any] = records.view(RECORD)
        """One record per row, including removed rows, (rows,) RECORD, memory-mapped."""
        features = whole_rows(mapped["features"], FEATURE_BYTES)
        self.features: npt.NDArray[np.float32] = features.view("<f4").reshape(-1, NUM_FEATURES)
        """One feature per row, including removed rows, (rows, 4096) float32, memory-mapped."""
        self._texts, self._thumbnails = mapped["texts"], mapped["thumbnails"]

        is_live = np.ones(len(self.records), bool)
        removed = whole_rows(mapped["removed"], 8).view("<u8")
        is_live[removed[removed < len(is_live)]] = False
        self.rows: Rows = np.flatnonzero(is_live)
        """The rows of the items in ascending order, (num_items,)."""
        self.ids: Rows = self.records["id"][self.rows].astype(np.int64)
        """The ids of the items, (num_items,). Both `ids` and `rows` are in ascending order."""
        if is_whole and len(self.rows) != manifest.num_items:
            raise IndexDirectoryError(
                f"{directory} has {len(self.rows):,} items "
                f"but its manifest says {manifest.num_items:,}; {verify}"
            )

        self._codes: Codes | IndexDirectoryError | None
        try:
            self._codes = map_codes(directory, manifest)  # now, because a commit may delete them
        except IndexDirectoryError as error:
            self._codes = error.with_traceback(None)

    @classmethod
    def open(cls, directory: Path) -> "Index":
        """Open the current commit; raises IndexDirectoryError."""
        manifest = read_manifest(directory)
        while True:
            try:
                index = cls(directory, manifest)
            except IndexDirectoryError:
                # A compaction may have replaced the files since the manifest was read.
                if (latest := read_manifest(directory)).commit == manifest.commit:
                    raise
            else:
                if not isinstance(index._codes, IndexDirectoryError):
                    return index
                # A new encoder may have replaced the codes since the manifest was read.
                if (latest := read_manifest(directory)).commit == manifest.commit:
                    return index
            manifest = latest

    @classmethod
    def salvage(cls, directory: Path) -> "Index":
        """Open an index that may be damaged, for `verify`. Rows may be missing or damaged.

        If the manifest is damaged, its copy is used. Raises IndexDirectoryError if both are lost.
        """
        return cls(directory, read_manifest_or_copy(directory), is_whole=False)

    @property
    def name(self) -> str:
        """The name of the index's directory."""
        return self.directory.resolve().name

    @property
    def codes(self) -> Codes | None:
        """One code per row, including removed rows, (rows, bits / 8) uint8, memory-mapped.

        None if the index has no encoder. Raises IndexDirectoryError if codes are missing.
        """
        if isinstance(self._codes, IndexDirectoryError):
            raise IndexDirectoryError(str(self._codes))
        return self._codes

    def item(self, id: int) -> Item | None:
        """The item with this id; None if the index has no such item."""
        return self.items_of([id]).get(id)

    def items_of(self, ids: Sequence[int]) -> dict[int, Item]:
        """The items with these ids, by id. Unknown ids are left out."""
        return {item.id: item for item in self._items(self.rows_of_ids(ids))}

    def items(
        self, *, label: Labels | None = None, limit: int = 100, offset: int = 0
    ) -> list[Item]:
        """A page of items in the order of their ids.

        With `label`, only items with one of these labels are listed. The first `offset` are
        skipped.
        """
        rows = self.rows if label is None else self.rows_of_label(label)
        return self._items(rows[offset : offset + limit])

    def count(self, label: Labels | None = None) -> int:
        """The number of items. With `label`, only items with one of these labels are counted."""
        return len(self.rows) if label is None else len(self.rows_of_label(label))

    def labels(self) -> dict[str, int]:
        """The number of items of each label, in natural order: `label 2` before `label 10`."""
        return dict(self._labels)

    def rows_of_label(self, label: Labels) -> Rows:
        """The rows of the items with one of these labels in ascending order, (n,)."""
        labels = [label] if isinstance(label, str) else label
        hashes = [hash_of(one) for one in labels if one in self._labels]
        rows: Rows = self.rows[np.isin(self._label_hashes, np.array(hashes, np.uint64))]
        return rows

    def rows_of_ids(self, ids: Iterable[int]) -> Rows:
        """The rows of the items with these ids, in the order of `ids`. Unknown ids are left out."""
        wanted = np.array([id for id in ids if 0 < id < self.manifest.next_id], np.int64)
        positions = np.searchsorted(self.ids, wanted)
        is_known = positions < len(self.ids)
        is_known[is_known] = self.ids[positions[is_known]] == wanted[is_known]
        rows: Rows = self.rows[positions[is_known]]
        return rows

    def rows_of_path(self, path: str) -> Rows:
        """The row of the item with this path, (1,); empty, (0,), if there is no such item."""
        rows = self._by_path.rows_of(hash_of(path))
        return np.array([row for row in rows if self.text(row)[0] == path], np.int64)

    def rows_of_content(self, sha256: str) -> Rows:
        """The rows of the items whose image file has this SHA-256, in ascending order, (n,)."""
        wanted = np.frombuffer(bytes.fromhex(sha256), np.uint8)
        rows = self._by_content.rows_of(int.from_bytes(wanted[:8].tobytes(), "little"))
        digests = self.records["sha256"]
        return np.array([row for row in rows if np.array_equal(digests[row], wanted)], np.int64)

    def text(self, row: int) -> tuple[str, str | None]:
        """The path and the label of a row."""
        record, content = self.records[row], self._text_bytes(row)
        path, label = content[: record["path_bytes"]], content[record["path_bytes"] :]
        return _decoded(path), _decoded(label) if record["label_hash"] else None

    def thumbnail(self, id: int) -> bytes | None:
        """The thumbnail of an item, as JPEG; None if the index has no such item."""
        rows = self.rows_of_ids([id])
        return self._thumbnail_bytes(rows[0]) if len(rows) else None

    def item_bytes(self, row: int) -> ItemBytes:
        """The bytes of a row's feature, text and thumbnail; fewer bytes if a file was cut off."""
        feature = self.features[row : row + 1].tobytes()
        return ItemBytes(feature, self._text_bytes(row), self._thumbnail_bytes(row))

    def stats(self) -> IndexStats:
        """The facts that `index stats` shows."""
        manifest, artefacts = self.manifest, self.manifest.artefacts
        return IndexStats(
            index=str(self.directory),
            model=manifest.model_id,
            precision=manifest.feature_precision,
            num_items=manifest.num_items,
            num_removed=manifest.num_rows - manifest.num_items,
            commit=manifest.commit,
            is_complete=manifest.is_complete,
            kind=manifest.kind,
            search={
                metric: {**artefacts[metric].facts, "num_bytes": artefacts[metric].num_bytes}
                for metric in METRICS
                if metric in artefacts
            },
            num_bytes=sum(
                file.stat().st_size for file in self.directory.rglob("*") if file.is_file()
            ),
            created_at=manifest.created_at,
            updated_at=manifest.updated_at,
            labels=self.labels(),
            probe=artefacts[PROBE].facts if PROBE in artefacts else None,
            codes=CodeStats.of(manifest),
            distance_comparison=manifest.distance_comparison,
        )

    @cached_property
    def _by_path(self) -> RowLookup:
        return RowLookup(self.records["path_hash"][self.rows], self.rows)

    @cached_property
    def _by_content(self) -> RowLookup:
        starts = np.ascontiguousarray(self.records["sha256"][self.rows, :8])
        return RowLookup(starts.view("<u8").reshape(-1), self.rows)

    @cached_property
    def _label_hashes(self) -> npt.NDArray[np.uint64]:
        """The label hash of each item in the order of `rows`, (num_items,)."""
        return np.ascontiguousarray(self.records["label_hash"][self.rows])

    @cached_property
    def _labels(self) -> dict[str, int]:
        _, firsts, counts = np.unique(self._label_hashes, return_index=True, return_counts=True)
        labels = [self.text(row)[1] for row in self.rows[firsts]]
        counted = {
            label: int(count)
            for label, count in zip(labels, counts, strict=True)
            if label is not None
        }
        return {label: counted[label] for label in sorted(counted, key=natural_key)}

    def _text_bytes(self, row: int) -> bytes:
        record = self.records[row]
        start = int(record["text_at"])
        end = start + int(record["path_bytes"]) + int(record["label_bytes"])
        return self._texts[start:end].tobytes()

    def _thumbnail_bytes(self, row: int) -> bytes:
        record = self.records[row]
        start = int(record["thumbnail_at"])
        return self._thumbnails[start : start + int(record["thumbnail_bytes"])].tobytes()

    def _items(self, rows: Rows) -> list[Item]:
        return [self._item(row) for row in rows]

    def _item(self, row: int) -> Item:
        record, (path, label) = self.records[row], self.text(row)
        added_at = datetime.fromtimestamp(int(record["added_at"]), UTC)
        return Item(
            id=int(record["id"]),
            path=path,
            label=label,
            width=int(record["width"]),
            height=int(record["height"]),
            sha256=record["sha256"].tobytes().hex(),
            added_at=added_at.isoformat(timespec="seconds"),
        )


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")  # a damaged text must be readable too
