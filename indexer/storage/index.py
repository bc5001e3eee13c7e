"""An index directory as readers see it: one commit, whole, whatever a writer does meanwhile.

manifest.json           what counts: the commit, how much of each growing file belongs to it, checksums of all
copy/manifest.json      the same, for the day that it is damaged
records, features, texts, thumbnails, removed, codes    the growing files (see records.py)
model/                  model.json and model.onnx, so that queries need nothing else
*.faiss, ...            artefacts, written once: see the manifest

Readers take no lock and write nothing, so a read-only volume will do. Nothing here is a database: rows only ever append, and a
commit is a length. So every committed byte has a checksum, and what a killed writer left can be cut off.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes, Rows
from indexer.metrics import METRICS
from indexer.storage.codes import encoding, facts_of
from indexer.storage.manifest import (
    REBUILD,
    Extent,
    IndexDirectoryError,
    Manifest,
    read_either,
    read_manifest,
)
from indexer.storage.records import CODES, RECORD, ROW_BYTES, Parts, hash_of
from training.network.model import NUM_FEATURES

MODEL_FOLDER = "model"


@dataclass(frozen=True)
class Item:
    """An indexed image; `width` and `height` in pixels, upright; `added_at` in ISO 8601, UTC."""

    id: int
    path: str
    label: str | None
    width: int
    height: int
    sha256: str
    added_at: str


class Index:
    """A reader of one commit. Safe to use from several threads."""

    def __init__(self, directory: Path, manifest: Manifest, *, is_whole: bool = True):
        self.directory, self.manifest = directory, manifest
        remedy = (
            f"run: lookalike index verify {directory}, which says what is lost, or {REBUILD}"
            if is_whole
            else None
        )
        opened = {
            kind: _map(directory, extent, remedy)
            for kind, extent in manifest.files.items()
            if kind != CODES
        }
        self.records: npt.NDArray[Any] = _whole(opened["records"], RECORD.itemsize).view(RECORD)
        """Of all rows, removed ones too, (rows,) RECORD, memory-mapped."""
        self.features: npt.NDArray[np.float32] = (
            _whole(opened["features"], ROW_BYTES).view("<f4").reshape(-1, NUM_FEATURES)
        )
        """Of all rows, (rows, 4096) float32, memory-mapped."""
        self._texts, self._thumbnails = opened["texts"], opened["thumbnails"]
        is_live = np.ones(len(self.records), bool)
        removed = _whole(opened["removed"], 8).view("<u8")
        is_live[removed[removed < len(is_live)]] = False
        self.rows: Rows = np.flatnonzero(is_live)
        """The items' rows, ascending, (num_items,)."""
        self.ids: Rows = self.records["id"][self.rows].astype(np.int64)
        """The items' ids, (num_items,), ascending too."""
        if is_whole and len(self.rows) != manifest.num_items:
            raise IndexDirectoryError(
                f"{directory} has {len(self.rows):,} items but its manifest says {manifest.num_items:,}; "
                f"run: lookalike index verify {directory}"
            )
        self._codes: Codes | IndexDirectoryError | None = None
        try:
            self._codes = _map_codes(
                directory, manifest
            )  # at once: a later commit may delete the file
        except IndexDirectoryError as error:
            self._codes = error.with_traceback(None)

    @classmethod
    def open(cls, directory: Path) -> "Index":
        """Opens the current commit; raises IndexDirectoryError."""
        manifest = read_manifest(directory)
        while True:
            try:
                index = cls(directory, manifest)
                if not isinstance(index._codes, IndexDirectoryError):
                    return index
            except IndexDirectoryError:
                # A compaction may have come between the manifest and its files.
                if (latest := read_manifest(directory)).commit == manifest.commit:
                    raise
            else:
                # Other codes may have come.
                if (latest := read_manifest(directory)).commit == manifest.commit:
                    return index
            manifest = latest

    @classmethod
    def salvage(cls, directory: Path) -> "Index":
        """Opens what is left of the last commit, for `verify`: rows may be missing or damaged. Raises IndexDirectoryError.

        A damaged manifest's copy tells what there was.
        """
        return cls(directory, read_either(directory), is_whole=False)

    @property
    def codes(self) -> Codes | None:
        """Of all rows, (rows, bits / 8) uint8, memory-mapped, None where the index has none; raises IndexDirectoryError where some miss."""
        if isinstance(self._codes, IndexDirectoryError):
            raise IndexDirectoryError(str(self._codes))
        return self._codes

    def item(self, id: int) -> Item | None:
        """The item of this id, None where there is none."""
        return self.items_of([id]).get(id)

    def items_of(self, ids: Sequence[int]) -> dict[int, Item]:
        """The items of these ids, by id; unknown ones are left out."""
        return {item.id: item for item in self._items(self.rows_of_ids(ids))}

    def items(self, *, label: str | None = None, limit: int = 100, offset: int = 0) -> list[Item]:
        """Items in the order of their ids; all labels, or one."""
        rows = self.rows if label is None else self.rows_of_label(label)
        return self._items(rows[offset : offset + limit])

    def count(self, label: str | None = None) -> int:
        """How many items there are; of all labels, or of one."""
        return len(self.rows) if label is None else len(self.rows_of_label(label))

    def labels(self) -> dict[str, int]:
        """The labels in alphabetical order, with the number of their items."""
        return dict(self._labels)

    def rows_of_label(self, label: str) -> Rows:
        """The rows of a label's items, ascending, (n,)."""
        return (
            self.rows[self._label_hashes == hash_of(label)]
            if label in self._labels
            else self.rows[:0]
        )

    def rows_of_ids(self, ids: Iterable[int]) -> Rows:
        """The rows of the items with these ids; unknown ones are left out."""
        wanted = np.array([id for id in ids if 0 < id < self.manifest.next_id], np.int64)
        places = np.searchsorted(self.ids, wanted)
        is_known = places < len(self.ids)
        is_known[is_known] = self.ids[places[is_known]] == wanted[is_known]
        rows: Rows = self.rows[places[is_known]]
        return rows

    def rows_of_path(self, path: str) -> Rows:
        """The row of the item with this path, or none, (0 or 1,)."""
        return np.array(
            [row for row in self._by_path.rows_of(hash_of(path)) if self.text(row)[0] == path],
            np.int64,
        )

    def rows_of_content(self, sha256: str) -> Rows:
        """The rows of the items with these bytes, ascending, (n,)."""
        wanted = np.frombuffer(bytes.fromhex(sha256), np.uint8)
        rows = self._by_content.rows_of(int.from_bytes(wanted[:8].tobytes(), "little"))
        return np.array(
            [row for row in rows if np.array_equal(self.records["sha256"][row], wanted)], np.int64
        )

    def text(self, row: int) -> tuple[str, str | None]:
        """The path and the label of a row."""
        record, whole = self.records[row], self._text_bytes(row)
        path, label = (
            part.decode("utf-8", "backslashreplace")
            for part in (whole[: record["path_bytes"]], whole[record["path_bytes"] :])
        )
        return path, label if record["label_hash"] else None

    def thumbnail(self, id: int) -> bytes | None:
        """An item's thumbnail as JPEG, None where there is no such item."""
        rows = self.rows_of_ids([id])
        return self._thumbnail_bytes(rows[0]) if len(rows) else None

    def parts(self, row: int) -> Parts:
        """The bytes of a row's feature, text and thumbnail; fewer where a file was cut off."""
        return Parts(
            self.features[row : row + 1].tobytes(),
            self._text_bytes(row),
            self._thumbnail_bytes(row),
        )

    def stats(self) -> dict[str, Any]:
        """What `index stats` prints: the manifest's facts, the bytes on disk, and the labels with their numbers of items."""
        manifest = self.manifest
        structures = {
            metric: manifest.artefacts[metric] for metric in METRICS if metric in manifest.artefacts
        }
        num_bytes = sum(file.stat().st_size for file in self.directory.rglob("*") if file.is_file())
        encoder = facts_of(manifest)
        return {
            "index": str(self.directory),
            "model": manifest.model_id,
            "num_items": manifest.num_items,
            "num_removed": manifest.num_rows - manifest.num_items,
            "commit": manifest.commit,
            "is_complete": manifest.is_complete,
            "kind": manifest.kind,
            "search": {
                metric: {**artefact.facts, "num_bytes": artefact.num_bytes}
                for metric, artefact in structures.items()
            },
            "num_bytes": num_bytes,
            "created_at": manifest.created_at,
            "updated_at": manifest.updated_at,
            "labels": self.labels(),
            "probe": manifest.artefacts["probe"].facts if "probe" in manifest.artefacts else None,
            "codes": encoder
            and {
                "num_bits": encoder.num_bits,
                "num_fitted": encoder.num_fitted,
                "commit": encoder.commit,
                "num_bytes": manifest.files[CODES].num_bytes,
            },
        }

    @cached_property
    def _by_path(self) -> "_ByHash":
        return _ByHash(self.records["path_hash"][self.rows], self.rows)

    @cached_property
    def _by_content(self) -> "_ByHash":
        starts = np.ascontiguousarray(self.records["sha256"][self.rows, :8])
        return _ByHash(starts.view("<u8").reshape(-1), self.rows)

    @cached_property
    def _label_hashes(self) -> npt.NDArray[np.uint64]:
        return np.ascontiguousarray(self.records["label_hash"][self.rows])

    @cached_property
    def _labels(self) -> dict[str, int]:
        _, firsts, counts = np.unique(self._label_hashes, return_index=True, return_counts=True)
        named = (
            (self.text(self.rows[first])[1], int(count))
            for first, count in zip(firsts, counts, strict=True)
        )
        return dict(sorted((label, count) for label, count in named if label is not None))

    def _text_bytes(self, row: int) -> bytes:
        record = self.records[row]
        start = int(record["text_at"])
        return self._texts[
            start : start + int(record["path_bytes"]) + int(record["label_bytes"])
        ].tobytes()

    def _thumbnail_bytes(self, row: int) -> bytes:
        record = self.records[row]
        start = int(record["thumbnail_at"])
        return self._thumbnails[start : start + int(record["thumbnail_bytes"])].tobytes()

    def _items(self, rows: Rows) -> list[Item]:
        items = []
        for row in rows:
            record, (path, label) = self.records[row], self.text(row)
            added_at = datetime.fromtimestamp(int(record["added_at"]), UTC).isoformat(
                timespec="seconds"
            )
            size = int(record["width"]), int(record["height"])
            items.append(
                Item(
                    int(record["id"]),
                    path,
                    label,
                    *size,
                    record["sha256"].tobytes().hex(),
                    added_at,
                )
            )
        return items


class _ByHash:
    """Finds rows by a hash (n,) of theirs."""

    def __init__(self, hashes: npt.NDArray[np.uint64], rows: Rows):
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._rows = hashes[order], rows[order]

    def rows_of(self, hash: int) -> Rows:
        start, end = (
            int(np.searchsorted(self._hashes, np.uint64(hash), side)) for side in ("left", "right")
        )
        return self._rows[start:end]


def _map(directory: Path, extent: Extent, remedy: str | None) -> npt.NDArray[np.uint8]:
    """The committed bytes of a growing file, memory-mapped; without a remedy for others missing, what there is of them."""
    file, num_bytes = directory / extent.file, extent.num_bytes
    size, content = None, np.empty(0, np.uint8)
    with (
        suppress(FileNotFoundError),
        file.open("rb") as opened,
    ):  # once: a compaction may delete it at any instant
        size = os.fstat(opened.fileno()).st_size
        if shape := min(size, num_bytes):
            content = np.asarray(np.memmap(opened, np.uint8, "r", shape=(shape,)))
    if remedy and (size is None or size < num_bytes):
        what = "is missing" if size is None else f"should hold {num_bytes:,} bytes but has {size:,}"
        raise IndexDirectoryError(f"{file} {what}; {remedy}")
    return content


def _map_codes(directory: Path, manifest: Manifest) -> Codes | None:
    facts = facts_of(manifest)
    if facts is None:
        return None
    extent, row_bytes = manifest.files[CODES], facts.num_bits // 8
    if extent.num_bytes != manifest.num_rows * row_bytes:
        raise IndexDirectoryError(
            f"the codes of {directory} are older than its items ({extent.num_bytes // row_bytes:,} for {manifest.num_rows:,} rows); "
            f"run: {encoding(directory, facts)}"
        )
    remedy = f"run: lookalike index verify {directory} --mend, which makes the codes again"
    return _map(directory, extent, remedy).reshape(-1, row_bytes)


def _whole(content: npt.NDArray[np.uint8], row_bytes: int) -> npt.NDArray[np.uint8]:
    return content[: len(content) // row_bytes * row_bytes]
