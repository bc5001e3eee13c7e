"""The one process that may change an index, and how a change becomes a commit.

Features are appended and synced, then the items' transaction is, then manifest.json is replaced: that is the commit. Whatever an
interrupted writer left beyond the manifest belongs to no commit, is seen by no reader, and is taken back by the next writer.
"""

import fcntl
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from indexer.index import ITEMS_FILE, MODEL_FOLDER, ROW_BYTES, SCHEMA, connect
from indexer.manifest import MANIFEST_FILE, IndexDirectoryError, Manifest, read_manifest, write_manifest
from training.model import (
    CARD_FILE,
    NUM_FEATURES,
    ONNX_FILE,
    TEMPORARY_SUFFIX,
    check_file,
    file_sha256,
    read_card,
    replacing,
    write_atomically,
)

LOCK_FILE = ".lock"


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """An image to add; `feature` is a row of 4096 float32."""

    path: str
    label: str | None
    sha256: str
    width: int
    height: int
    thumbnail: bytes
    feature: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """What the index already holds under a path."""

    id: int
    sha256: str
    label: str | None


class IndexWriter:
    """Adds and removes items; a context manager. Nothing counts before `commit()`, and leaving without one drops it."""

    def __init__(self, directory: Path, lock: BinaryIO):
        self.directory, self._lock = directory, lock
        self.manifest = read_manifest(directory)
        self._database = connect(directory)
        self._added: list[NewItem] = []
        self._removed: list[int] = []
        self._take_back()

    @classmethod
    def open(cls, directory: Path, model_directory: Path) -> "IndexWriter":
        """Opens an index to change it, or makes an empty one; raises IndexDirectoryError for another model's or one in use."""
        card = read_card(model_directory)
        _make_directory(directory)
        lock = _lock(directory)
        try:
            if not (directory / MANIFEST_FILE).is_file():
                _create(directory, model_directory, card.id)
            writer = cls(directory, lock)
            if writer.manifest.model_id != card.id:
                raise IndexDirectoryError(
                    f"{directory} was built with model {writer.manifest.model_id[:12]} but {model_directory} is {card.id[:12]}; "
                    "pass the first one's --model, or another --out"
                )
            return writer
        except BaseException:
            lock.close()
            raise

    def known(self) -> dict[str, Known]:
        """The committed items by path."""
        found = self._database.execute("SELECT path, id, sha256, label FROM items WHERE removed_commit IS NULL")
        return {path: Known(id, sha256, label) for path, id, sha256, label in found}

    def add(self, item: NewItem) -> None:
        """Adds an item with the next commit."""
        assert item.feature.shape == (NUM_FEATURES,)
        self._added.append(item)

    def remove(self, ids: Iterable[int]) -> None:
        """Removes items with the next commit."""
        self._removed.extend(ids)

    def commit(self, *, is_complete: bool = False) -> None:
        """Makes the pending changes count, all or none of them; `is_complete` says that a build ends with it."""
        if not self._added and not self._removed and self.manifest.is_complete == is_complete:
            return
        commit, now = self.manifest.commit + 1, _now()
        features = [np.ascontiguousarray(item.feature, "<f4").tobytes() for item in self._added]
        with (self.directory / self.manifest.features_file).open("ab") as out:
            out.writelines(features)
            out.flush()
            os.fsync(out.fileno())
        with self._database:
            for row, (item, feature) in enumerate(zip(self._added, features, strict=True), self.manifest.num_rows):
                cursor = self._database.execute(
                    "INSERT INTO items (row, sha256, path, label, width, height, added_at, feature_crc32, added_commit) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (row, item.sha256, item.path, item.label, item.width, item.height, now, zlib.crc32(feature), commit),
                )
                self._database.execute("INSERT INTO thumbnails VALUES (?, ?)", (cursor.lastrowid, item.thumbnail))
            removed = [(commit, id) for id in self._removed]
            num_removed = self._database.executemany(
                "UPDATE items SET removed_commit = ? WHERE id = ? AND removed_commit IS NULL", removed
            ).rowcount
        manifest = replace(
            self.manifest, commit=commit, updated_at=now, is_complete=is_complete, num_rows=self.manifest.num_rows + len(features),
            num_items=self.manifest.num_items + len(features) - max(num_removed, 0),
        )  # fmt: skip
        write_manifest(manifest, self.directory)
        self.manifest = manifest
        self._added.clear()
        self._removed.clear()

    def close(self) -> None:
        """Drops what was not committed and lets the next writer in."""
        self._database.close()
        self._lock.close()

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_back(self) -> None:
        """Undoes what an interrupted writer left beyond the last commit."""
        file = self.directory / self.manifest.features_file
        committed_bytes = self.manifest.num_rows * ROW_BYTES
        size = file.stat().st_size if file.is_file() else 0
        if size < committed_bytes:
            raise IndexDirectoryError(
                f"{file} should hold {committed_bytes:,} bytes but has {size:,}; restore it from a copy, or build the index again"
            )
        os.truncate(file, committed_bytes)
        with self._database:
            beyond = self.manifest.commit
            self._database.execute("DELETE FROM thumbnails WHERE item_id IN (SELECT id FROM items WHERE added_commit > ?)", [beyond])
            self._database.execute("DELETE FROM items WHERE added_commit > ?", [beyond])
            self._database.execute("UPDATE items SET removed_commit = NULL WHERE removed_commit > ?", [beyond])


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexDirectoryError(f"{directory} cannot be made ({error.strerror}); pass another --out") from error
    others = [entry for entry in directory.iterdir() if entry.name not in (LOCK_FILE, *_FIRST_FILES) and entry.suffix != TEMPORARY_SUFFIX]
    if others and not (directory / MANIFEST_FILE).exists():
        raise IndexDirectoryError(f"{directory} holds other files and is no index; pass an --out that is empty or does not exist yet")


def _lock(directory: Path) -> BinaryIO:
    lock = (directory / LOCK_FILE).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise IndexDirectoryError(f"{directory} is being changed by another process; wait until that one has finished") from error
    return lock


_FIRST_FILES = (MODEL_FOLDER, ITEMS_FILE, f"{ITEMS_FILE}-journal", "features-0.f32")


def _create(directory: Path, model_directory: Path, model_id: str) -> None:
    """An index without items; the manifest comes last and makes it one."""
    (directory / MODEL_FOLDER).mkdir(exist_ok=True)
    checksums = {}
    card = read_card(model_directory)
    onnx = check_file(model_directory, ONNX_FILE, card.onnx_sha256)
    for file in (onnx, model_directory / CARD_FILE):
        copy = directory / MODEL_FOLDER / file.name
        with replacing(copy) as temporary:
            shutil.copyfile(file, temporary)
        checksums[f"{MODEL_FOLDER}/{file.name}"] = file_sha256(copy)
    (directory / ITEMS_FILE).unlink(missing_ok=True)
    database = sqlite3.connect(directory / ITEMS_FILE)
    database.executescript(SCHEMA)
    database.close()
    features_file = "features-0.f32"
    write_atomically(directory / features_file, b"")
    now = _now()
    manifest = Manifest(
        model_id=model_id,
        num_items=0,
        num_rows=0,
        commit=0,
        is_complete=False,
        features_file=features_file,
        created_at=now,
        updated_at=now,
        checksums=checksums,
    )
    write_manifest(manifest, directory)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
