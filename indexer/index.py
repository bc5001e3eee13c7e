"""An index directory as readers see it: one commit, whole, whatever a writer does meanwhile.

manifest.json   what counts: the commit, the number of rows, the model's id
items.sqlite    the items, and their thumbnails as JPEG
features-0.f32  float32 rows of 4096, little-endian, in the order of their addition
model/          model.json and model.onnx, so that queries need nothing else
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.manifest import IndexDirectoryError, Manifest, read_manifest
from training.model import NUM_FEATURES

ITEMS_FILE, MODEL_FOLDER = "items.sqlite", "model"
ROW_BYTES = 4 * NUM_FEATURES
SQLITE_TIMEOUT_S = 30.0

SCHEMA = """
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    row INTEGER NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    path TEXT NOT NULL,
    label TEXT,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    added_at TEXT NOT NULL,
    feature_crc32 INTEGER NOT NULL,
    added_commit INTEGER NOT NULL,
    removed_commit INTEGER
);
CREATE INDEX items_by_path ON items (path);
CREATE INDEX items_by_label ON items (label);
CREATE TABLE thumbnails (item_id INTEGER PRIMARY KEY REFERENCES items (id), jpeg BLOB NOT NULL);
"""


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

    def __init__(self, directory: Path, manifest: Manifest, database: sqlite3.Connection, features: npt.NDArray[np.float32]):
        self.directory, self.manifest = directory, manifest
        self.features = features
        """Memory-mapped, (rows, 4096) float32, C-contiguous; `rows` says which of them are items."""
        self._database = database
        self._is_live = f"added_commit <= {manifest.commit} AND (removed_commit IS NULL OR removed_commit > {manifest.commit})"
        pairs = np.array(database.execute(f"SELECT row, id FROM items WHERE {self._is_live} ORDER BY row").fetchall(), np.int64)
        self.rows, self.ids = np.ascontiguousarray(pairs.reshape(-1, 2).T)
        """The items' rows in `features`, ascending, and their ids, (num_items,) int64 each."""

    @classmethod
    def open(cls, directory: Path) -> "Index":
        """Opens the current commit; raises IndexDirectoryError."""
        manifest = read_manifest(directory)
        features = _map_features(directory / manifest.features_file, manifest.num_rows)
        try:
            index = cls(directory, manifest, connect(directory), features)
        except sqlite3.Error as error:
            raise _unreadable(directory / ITEMS_FILE, error) from error
        if len(index.ids) != manifest.num_items:
            index.close()
            raise IndexDirectoryError(
                f"{directory / ITEMS_FILE} has {len(index.ids):,} items but the manifest {manifest.num_items:,}: they are of different "
                "times; restore both from one copy, or build the index again"
            )
        return index

    def item(self, id: int) -> Item | None:
        """The item of this id, None where there is none."""
        return self.items_of([id]).get(id)

    def items_of(self, ids: Sequence[int]) -> dict[int, Item]:
        """The items of these ids, by id; unknown ones are left out."""
        found: dict[int, Item] = {}
        for start in range(0, len(ids), 500):  # SQLite takes a limited number of variables
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            found.update((item.id, item) for item in self._select(f"AND id IN ({marks})", some))
        return found

    def items(self, *, label: str | None = None, limit: int = 100, offset: int = 0) -> list[Item]:
        """Items in the order of their ids; all labels, or one."""
        where, values = _by_label(label)
        return self._select(f"{where} ORDER BY id LIMIT ? OFFSET ?", [*values, limit, offset])

    def count(self, label: str | None = None) -> int:
        """How many items there are; of all labels, or of one."""
        where, values = _by_label(label)
        return int(self._database.execute(f"SELECT count(*) FROM items WHERE {self._is_live} {where}", values).fetchone()[0])

    def labels(self) -> dict[str, int]:
        """The labels in alphabetical order, with the number of their items."""
        query = f"SELECT label, count(*) FROM items WHERE {self._is_live} AND label IS NOT NULL GROUP BY label ORDER BY label"
        return dict(self._database.execute(query).fetchall())

    def rows_of_label(self, label: str) -> npt.NDArray[np.int64]:
        """The feature rows of a label's items, ascending, (n,) int64."""
        found = self._database.execute(f"SELECT row FROM items WHERE {self._is_live} AND label = ? ORDER BY row", [label])
        return np.array([row for (row,) in found], np.int64)

    def thumbnail(self, id: int) -> bytes | None:
        """An item's thumbnail as JPEG, None where there is no such item."""
        query = f"SELECT jpeg FROM thumbnails JOIN items ON items.id = item_id WHERE item_id = ? AND {self._is_live}"
        found = self._database.execute(query, [id]).fetchone()
        return None if found is None else bytes(found[0])

    def stats(self) -> dict[str, Any]:
        """What `index stats` prints: the manifest's facts, the bytes on disk, and the labels with their numbers of items."""
        manifest = self.manifest
        num_bytes = sum(file.stat().st_size for file in self.directory.rglob("*") if file.is_file())
        return {
            "index": str(self.directory), "model": manifest.model_id, "num_items": manifest.num_items, "num_rows": manifest.num_rows,
            "commit": manifest.commit, "is_complete": manifest.is_complete, "kind": manifest.kind, "code_bits": manifest.code_bits,
            "num_bytes": num_bytes, "created_at": manifest.created_at, "updated_at": manifest.updated_at, "labels": self.labels(),
        }  # fmt: skip

    def close(self) -> None:
        self._database.close()

    def _select(self, where: str, values: Sequence[object]) -> list[Item]:
        query = f"SELECT id, path, label, width, height, sha256, added_at FROM items WHERE {self._is_live} {where}"
        return [Item(*row) for row in self._database.execute(query, values).fetchall()]


def connect(directory: Path) -> sqlite3.Connection:
    """The database of an index, for any thread: sqlite3 is built serialized. Raises IndexDirectoryError.

    A writer killed while committing leaves a journal that the next to open rolls back, a reader too, hence mode=rw. On a read-only
    volume SQLite reads what has no such journal, and refuses what has one.
    """
    assert sqlite3.threadsafety == 3
    file = directory / ITEMS_FILE
    try:
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=SQLITE_TIMEOUT_S, check_same_thread=False)
    except sqlite3.Error as error:
        raise _unreadable(file, error) from error
    try:
        database.execute("SELECT 1 FROM items LIMIT 1")
        database.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        database.close()
        raise _unreadable(file, error) from error
    return database


def _unreadable(file: Path, error: sqlite3.Error) -> IndexDirectoryError:
    return IndexDirectoryError(
        f"{file} cannot be read ({error}); if a writer was interrupted, open the index once where it may be written; "
        "else restore it from a copy, or build the index again"
    )


def _by_label(label: str | None) -> tuple[str, list[object]]:
    return ("", []) if label is None else ("AND label = ?", [label])


def _map_features(file: Path, num_rows: int) -> npt.NDArray[np.float32]:
    if not num_rows:
        return np.empty((0, NUM_FEATURES), np.float32)
    size = file.stat().st_size if file.is_file() else 0
    if size < num_rows * ROW_BYTES:
        raise IndexDirectoryError(
            f"{file} should hold {num_rows:,} features, {num_rows * ROW_BYTES:,} bytes, but has {size:,}; "
            "restore it from a copy, or build the index again"
        )
    return np.memmap(file, "<f4", "r", shape=(num_rows, NUM_FEATURES))
