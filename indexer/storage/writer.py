"""The one process that may change an index, and how a change becomes a commit.

What is new is appended to the growing files and synced, then manifest.json is replaced: that is the commit. What an interrupted
writer left beyond the manifest belongs to no commit, is seen by no reader, and is cut off: by the writer itself as it leaves or, where
that was killed, by the next one. A compaction writes the next generation of the growing files, and its commit is the same replacement;
so is that of a new encoder's codes, which are a file of their own.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes, Rows
from indexer.storage.codes import Encoder, load_encoder
from indexer.storage.directory import (
    ARTEFACT_SUFFIXES,
    OURS,
    copy_model,
    create,
    make_directory,
    now,
    take_lock,
)
from indexer.storage.growing_files import (
    BLOCK_ROWS,
    CodesFile,
    GrowingFile,
    cut_off,
    new_files,
    open_files,
    read_extent,
)
from indexer.storage.index import Index
from indexer.storage.manifest import (
    ENCODER,
    Artefact,
    Extent,
    IndexDirectoryError,
    Manifest,
    is_index,
    read_copy,
    read_either,
    read_manifest,
    restore_manifest,
    write_copy,
    write_manifest,
)
from indexer.storage.records import CODES, RECORD, Parts, damaged_parts, file_name, hash_of, sealed
from training.files import file_sha256, replacing
from training.network.model import NUM_FEATURES, read_card
from training.progress import Bar


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """An image to add; `feature` is a row of 4096 float32, `stamp` tells a file that was not touched since (0: unknown)."""

    path: str
    label: str | None
    sha256: str
    width: int
    height: int
    thumbnail: bytes
    feature: npt.NDArray[np.float32]
    stamp: int = 0


class IndexWriter:
    """Adds and removes items; a context manager. Nothing counts before `commit()`, and leaving without one drops it."""

    def __init__(self, index: Index, lock: BinaryIO):
        self.directory, self._lock = index.directory, lock
        self.index, self.manifest = index, index.manifest
        """What was committed when the writer came, and what is now."""
        self._artefacts, self._model_files = (
            dict(self.manifest.artefacts),
            dict(self.manifest.model_files),
        )
        self.search = dict(self.manifest.search)
        """What the next commit's manifest says there."""
        self._num_new = self._num_removed = 0
        self._removed: set[int] = set()
        write_copy(self.directory)
        self._sweep(self.manifest)
        self._files: dict[str, GrowingFile] = {}
        self._codes: CodesFile | None = None
        """Opened by the first that is written."""

    @classmethod
    def open(cls, directory: Path, model_directory: Path | None = None) -> "IndexWriter":
        """Opens an index to change it; with a model, makes an empty one where there is none.

        Raises IndexDirectoryError for one that is of another model or in use.
        """
        if model_directory:
            read_card(model_directory)
            make_directory(directory)
        else:
            read_manifest(directory)
        lock = take_lock(directory)
        try:
            if model_directory and not is_index(directory):
                create(directory, model_directory)
            writer = cls(Index.open(directory), lock)
            if model_directory:
                writer.check_model(read_card(model_directory).id, model_directory)
            writer._files = open_files(directory, writer.manifest.files)
            return writer
        except BaseException:
            lock.close()
            raise

    @classmethod
    def salvage(cls, directory: Path) -> "IndexWriter":
        """Opens what is left of an index, to mend it and nothing else; restores its manifest. Raises IndexDirectoryError."""
        read_either(directory)
        lock = take_lock(directory)
        try:
            restore_manifest(directory)
            return cls(Index.salvage(directory), lock)
        except BaseException:
            lock.close()
            raise

    def check_model(self, model_id: str, model_directory: Path) -> None:
        """Raises IndexDirectoryError unless the index is of this model."""
        if self.manifest.model_id != model_id:
            raise IndexDirectoryError(
                f"{self.directory} was built with model {self.manifest.model_id[:12]} but {model_directory} is {model_id[:12]}; "
                "pass the first one's --model, or another --out"
            )

    @property
    def num_items(self) -> int:
        """How many items there are with the next commit."""
        return self.manifest.num_items + self._num_new - self._num_removed

    def add(self, item: NewItem) -> int:
        """Adds an item with the next commit, and gives its id; raises IndexDirectoryError for a damaged encoder, or lost codes."""
        assert item.feature.shape == (NUM_FEATURES,)
        codes = self._open_codes()
        path, label = item.path.encode(), (item.label or "").encode()
        parts = Parts(
            np.ascontiguousarray(item.feature, "<f4").tobytes(), path + label, item.thumbnail
        )
        record = np.zeros((), RECORD)
        record["sha256"] = np.frombuffer(bytes.fromhex(item.sha256), np.uint8)
        record["path_hash"], record["label_hash"] = (
            hash_of(item.path),
            0 if item.label is None else hash_of(item.label),
        )
        record["path_bytes"], record["label_bytes"] = len(path), len(label)
        record["thumbnail_bytes"] = len(item.thumbnail)
        record["width"], record["height"], record["stamp"] = item.width, item.height, item.stamp
        record["norm"] = np.linalg.norm(item.feature)
        record["added_at"] = int(datetime.now(UTC).timestamp())
        record["feature_crc32"], record["text_crc32"], record["thumbnail_crc32"] = map(
            zlib.crc32, parts
        )
        record["id"] = self._num_new + self.manifest.next_id
        self._append(record, parts)
        if codes:
            codes.encode(item.feature[None])
        return int(record["id"])

    def remove(self, ids: Iterable[int]) -> None:
        """Removes items with the next commit; an id that is no item's does nothing."""
        first_new = self.index.manifest.next_id
        ids = list(ids)
        rows = self.index.rows_of_ids(ids).tolist()
        rows += [
            self.index.manifest.num_rows + id - first_new
            for id in ids
            if first_new <= id < self.manifest.next_id + self._num_new
        ]
        for row in rows:
            if row not in self._removed:
                self._removed.add(row)
                self._files["removed"].append(np.uint64(row).tobytes())
                self._num_removed += 1

    @contextmanager
    def artefact(self, name: str, suffix: str, facts: Mapping[str, Any]) -> Iterator[Path]:
        """Gives a path to write a file to, which the next commit makes the index's `name`; raises OSError naming it."""
        assert suffix in ARTEFACT_SUFFIXES
        file = self.directory / f"{name}-{self.manifest.commit + 1}.{suffix}"
        with replacing(file) as temporary:
            yield temporary
        self._artefacts[name] = Artefact(file.name, file.stat().st_size, file_sha256(file), facts)

    def restore_model(self, model_directory: Path) -> None:
        """Copies the index's model anew, for the next commit to count on; raises IndexDirectoryError for another one."""
        self.check_model(read_card(model_directory).id, model_directory)
        self._model_files = copy_model(model_directory, self.directory)

    def drop_artefact(self, name: str) -> None:
        """Takes an artefact out with the next commit."""
        self._artefacts.pop(name, None)

    def write_codes(self, encoder: Encoder) -> None:
        """Has the next commit keep an encoder, by which new rows have their codes from then on, and the codes of all rows.

        What is pending is committed first.
        """
        self.commit()
        index = Index.open(self.directory)
        codes = self._encoded(encoder, index, np.arange(len(index.records)))
        try:
            with self.artefact(ENCODER, "npz", asdict(encoder.facts)) as path:
                encoder.save(path)
        except BaseException:
            codes.close()
            raise
        if self._codes:
            self._codes.close()
        self._codes = codes

    def drop_codes(self) -> None:
        """Takes the encoder and the codes out with the next commit."""
        self.drop_artefact(ENCODER)
        if self._codes:
            self._codes.close()
            self._codes = None

    def commit(self, *, is_complete: bool | None = None) -> None:
        """Makes the pending changes count, all or none of them; `is_complete` says whether the last build has reached its end."""
        manifest = self.manifest
        is_complete = manifest.is_complete if is_complete is None else is_complete
        is_changed = self._num_new or self._num_removed or is_complete != manifest.is_complete
        pending = self._artefacts, self._model_files, self.search
        if not is_changed and pending == (
            manifest.artefacts,
            manifest.model_files,
            manifest.search,
        ):
            return
        extents = {**manifest.files, **{kind: file.sync() for kind, file in self._files.items()}}
        if self._codes:
            extents[CODES] = self._codes.sync()
        elif ENCODER not in self._artefacts:
            extents.pop(CODES, None)
        self._replace_manifest(
            replace(
                manifest,
                num_rows=manifest.num_rows + self._num_new,
                next_id=manifest.next_id + self._num_new,
                files=extents,
                num_items=self.num_items,
                is_complete=is_complete,
            )
        )

    def rewrite(self, rows: Rows, *, is_complete: bool | None = None) -> None:
        """Writes these rows of the index anew, as the next generation of its files, and commits.

        Their codes go with them; damaged ones are made again. Raises IndexDirectoryError, and changes nothing, where a row is damaged.
        """
        assert not self._num_new + self._num_removed
        assert self._artefacts.get(ENCODER) in (None, self.manifest.artefacts.get(ENCODER))
        index, generation = self.index, self.manifest.generation + 1
        self._close_files()
        try:
            self._files = open_files(self.directory, new_files(generation))
            for row in rows:
                record, parts = index.records[row], index.parts(row)
                if damaged := damaged_parts(record, parts):
                    raise IndexDirectoryError(
                        f"the {damaged[0]} of item {record['id']} in {self.directory} is damaged, so nothing was changed; "
                        f"run: lookalike index verify {self.directory}"
                    )
                self._append(index.records[row : row + 1].copy().reshape(()), parts)
            extents = {kind: file.sync() for kind, file in self._files.items()}
            if ENCODER in self._artefacts:
                extents[CODES] = self._carried_codes(rows)
            self._replace_manifest(
                replace(
                    self.manifest,
                    generation=generation,
                    num_items=len(rows),
                    num_rows=len(rows),
                    files=extents,
                    is_complete=self.manifest.is_complete if is_complete is None else is_complete,
                )
            )
        finally:
            self.manifest = read_manifest(self.directory)
            self._sweep(
                self.manifest
            )  # the generation that counts no more, or, on a full disk, what there is of the next
        self.index = Index.open(self.directory)
        self._removed.clear()

    def close(self) -> None:
        """Drops what was not committed, so that a full disk has its room back, and lets the next writer in."""
        self._close_files()
        with suppress(OSError, IndexDirectoryError):  # else the next writer does
            committed = read_manifest(
                self.directory
            )  # an error may have come between the commit and its return
            cut_off(self.directory, committed)
            self._sweep(
                committed, self.index.manifest
            )  # readers may be about to open what the last commit replaced
        self._lock.close()

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, record: npt.NDArray[np.void], parts: Parts) -> None:
        record["text_at"], record["thumbnail_at"] = (
            self._files["texts"].num_bytes,
            self._files["thumbnails"].num_bytes,
        )
        self._files["features"].append(parts.feature)
        self._files["texts"].append(parts.text)
        self._files["thumbnails"].append(parts.thumbnail)
        self._files["records"].append(sealed(record))
        self._num_new += 1

    def _open_codes(self) -> CodesFile | None:
        """Where codes of new rows go; None where the index has none. Raises IndexDirectoryError where rows before miss theirs."""
        if self._codes is None and ENCODER in self._artefacts and self.index.codes is not None:
            encoder = load_encoder(self.directory, self.manifest)
            assert encoder
            self._codes = CodesFile(self.directory, self.manifest.files[CODES], encoder)
        return self._codes

    def _encoded(self, encoder: Encoder, index: Index, rows: Rows) -> CodesFile:
        """A file of codes for the next commit, with those of these rows; raises OSError naming it."""
        codes = CodesFile(self.directory, self._new_codes(), encoder)
        try:
            with Bar("Encoding", len(rows)) as bar:
                for start in range(0, len(rows), BLOCK_ROWS):
                    block = rows[start : start + BLOCK_ROWS]
                    codes.encode(index.features[block])
                    bar.advance(len(block))
            codes.sync()
        except BaseException:
            codes.close()
            raise
        return codes

    def _carried_codes(self, rows: Rows) -> Extent:
        """Writes the codes of these rows of the index into a new file."""
        if (codes := _whole_codes(self.index, self.manifest.files[CODES])) is not None:
            file = GrowingFile(self.directory, self._new_codes())
        else:
            encoder = load_encoder(self.directory, self.manifest)
            assert encoder
            file = self._encoded(encoder, self.index, rows)
        try:
            if codes is not None:
                file.append(codes[rows].tobytes())
            return file.sync()
        finally:
            file.close()

    def _new_codes(self) -> Extent:
        return Extent(file_name(CODES, self.manifest.commit + 1))

    def _replace_manifest(self, manifest: Manifest) -> None:
        manifest = replace(
            manifest,
            commit=self.manifest.commit + 1,
            updated_at=now(),
            artefacts=dict(self._artefacts),
            model_files=dict(self._model_files),
            search=dict(self.search),
        )
        write_manifest(manifest, self.directory)
        self.manifest = manifest
        self._num_new = self._num_removed = 0

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()
        if self._codes:
            self._codes.close()
            self._codes = None

    def _sweep(self, *commits: Manifest) -> None:
        """Deletes what neither these commits nor the manifest's copy name: an interrupted writer's files, and those replaced since."""
        copy = read_copy(self.directory)
        named = [*commits, copy] if copy else commits
        kept = {extent.file for manifest in named for extent in manifest.files.values()}
        kept |= {artefact.file for manifest in named for artefact in manifest.artefacts.values()}
        for file in self.directory.iterdir():
            if file.name not in kept and OURS.fullmatch(file.name):
                file.unlink(missing_ok=True)


def _whole_codes(index: Index, extent: Extent) -> Codes | None:
    """The codes of an index, if they are those of this extent and every byte is as it was written."""
    with suppress(IndexDirectoryError, FileNotFoundError):
        if index.manifest.files.get(CODES) == extent == read_extent(index.directory, extent):
            return index.codes
    return None
