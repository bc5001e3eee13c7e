"""Change an index. Only one process at a time may change it.

New data is appended to the growing files and synced. Then manifest.json is replaced, which commits
the data. No reader sees bytes that were appended but not committed. The writer cuts them off, or
the next writer if it was killed. A compaction writes the next generation of the growing files, and
a new encoder a new file of codes. These are committed in the same way.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from indexer.array_types import Rows
from indexer.storage.code_files import CodeFile, continue_codes, copy_codes, encode_rows
from indexer.storage.codes import Encoder
from indexer.storage.directory import (
    ARTEFACT_SUFFIXES,
    copy_model,
    create,
    make_directory,
    now,
    remove_leftovers,
    take_lock,
)
from indexer.storage.growing_files import GrowingFile, new_files, open_files, truncate_to_commit
from indexer.storage.index import Index
from indexer.storage.manifest import (
    ENCODER,
    Artefact,
    IndexDirectoryError,
    Manifest,
    check_model,
    is_index,
    read_manifest,
    read_manifest_or_copy,
    restore_manifest,
    write_copy,
    write_manifest,
)
from indexer.storage.records import CODES
from indexer.storage.row_writing import NewItem, append_copies, append_item
from training.devices import Precision
from training.files import file_sha256, replacing
from training.network.model import ModelCard, read_card


class IndexWriter(AbstractContextManager["IndexWriter"]):
    """A context manager that adds and removes items.

    Changes take effect with `commit()`. Leaving the context drops changes that were not committed.
    """

    def __init__(self, index: Index, lock: BinaryIO):
        self.directory, self._lock = index.directory, lock
        self.index = index
        """The commit that the writer opened."""
        self.manifest = index.manifest
        """The latest commit."""
        self.search_options = dict(self.manifest.search)
        """The value of `search` in the next commit's manifest."""
        self._artefacts = dict(self.manifest.artefacts)
        self._model_files = dict(self.manifest.model_files)
        self._num_new = self._num_removed = 0
        self._removed_rows: set[int] = set()
        self._files: dict[str, GrowingFile] = {}
        self._codes: CodeFile | None = None
        """The file of codes. It is opened when the first code is written."""
        write_copy(self.directory)
        remove_leftovers(self.directory, self.manifest)

    @classmethod
    def open(
        cls,
        directory: Path,
        model_directory: Path | None = None,
        *,
        card: ModelCard | None = None,
        precision: Precision = "float32",
    ) -> "IndexWriter":
        """Open an index to change it.

        If `model_directory` is given and there is no index, an empty index is made, for features
        in this precision. `card` is the model's card if it was read already. Raises
        IndexDirectoryError if the index is in use or was not built with this model.
        """
        if model_directory:
            card = card or read_card(model_directory)
            make_directory(directory)
        else:
            read_manifest(directory)
        lock = take_lock(directory)
        try:
            if model_directory and card and not is_index(directory):
                create(directory, model_directory, card, precision)
            writer = cls(Index.open(directory), lock)
            if card:
                remedy = "pass the --model that it was built with, or another --out"
                check_model(writer.manifest, directory, card, str(model_directory), remedy)
            writer._files = open_files(directory, writer.manifest.files)
            return writer
        except BaseException:
            lock.close()
            raise

    @classmethod
    def salvage(cls, directory: Path) -> "IndexWriter":
        """Open an index that may be damaged, in order to mend it, and restore its manifest.

        Raises IndexDirectoryError if the manifest and its copy are lost.
        """
        read_manifest_or_copy(directory)
        lock = take_lock(directory)
        try:
            restore_manifest(directory)
            return cls(Index.salvage(directory), lock)
        except BaseException:
            lock.close()
            raise

    @property
    def num_items(self) -> int:
        """The number of items, including pending changes."""
        return self.manifest.num_items + self._num_new - self._num_removed

    def add(self, item: NewItem) -> int:
        """Add an item and return its id; raises IndexDirectoryError for damaged codes."""
        if self._codes is None and ENCODER in self._artefacts:
            self._codes = continue_codes(self.index, self.manifest)
        id = self.manifest.next_id + self._num_new
        append_item(self._files, item, id)
        self._num_new += 1
        if self._codes:
            self._codes.encode(item.feature[None])
        return id

    def remove(self, ids: Iterable[int]) -> None:
        """Remove items. Ids without an item are ignored."""
        ids = list(ids)
        opened = self.index.manifest
        rows = self.index.rows_of_ids(ids).tolist()
        rows += [
            opened.num_rows + id - opened.next_id
            for id in ids
            if opened.next_id <= id < self.manifest.next_id + self._num_new
        ]
        for row in rows:
            if row not in self._removed_rows:
                self._removed_rows.add(row)
                self._files["removed"].append(np.uint64(row).tobytes())
                self._num_removed += 1

    @contextmanager
    def artefact(self, name: str, suffix: str, facts: Mapping[str, Any]) -> Iterator[Path]:
        """Yield a path to write to. With the next commit, the file becomes the artefact `name`.

        If writing fails, the OSError names the file.
        """
        assert suffix in ARTEFACT_SUFFIXES
        file = self.directory / f"{name}-{self.manifest.commit + 1}.{suffix}"
        with replacing(file) as temporary:
            yield temporary
        self._artefacts[name] = Artefact(file.name, file.stat().st_size, file_sha256(file), facts)

    def drop_artefact(self, name: str) -> None:
        """Remove an artefact from the index with the next commit."""
        self._artefacts.pop(name, None)

    def restore_model(self, model_directory: Path) -> None:
        """Copy the model into the index again; raises IndexDirectoryError for a different model."""
        card = read_card(model_directory)
        remedy = "pass the --model that it was built with"
        check_model(self.manifest, self.directory, card, str(model_directory), remedy)
        precision = self.manifest.feature_precision
        self._model_files = copy_model(model_directory, card, self.directory, precision)

    def write_codes(self, encoder: Encoder) -> None:
        """Encode all rows. The next commit adds the encoder and the codes to the index.

        Pending changes are committed first. Rows that are added later are encoded when they are
        added.
        """
        self.commit()
        index, commit = Index.open(self.directory), self.manifest.commit + 1
        codes = encode_rows(index, np.arange(len(index.records)), encoder, commit=commit)
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
        """Remove the encoder and the codes from the index with the next commit."""
        self.drop_artefact(ENCODER)
        if self._codes:
            self._codes.close()
            self._codes = None

    def commit(self, *, is_complete: bool | None = None) -> None:
        """Commit all pending changes together. If there are no changes, do nothing.

        `is_complete` says whether the last build has reached its end. None keeps the stored value.
        """
        manifest = self.manifest
        is_complete = manifest.is_complete if is_complete is None else is_complete
        pending = self._artefacts, self._model_files, self.search_options
        committed = manifest.artefacts, manifest.model_files, manifest.search
        has_changes = self._num_new or self._num_removed or is_complete != manifest.is_complete
        if not has_changes and pending == committed:
            return
        extents = {**manifest.files, **{kind: file.sync() for kind, file in self._files.items()}}
        if self._codes:
            extents[CODES] = self._codes.sync()
        elif ENCODER not in self._artefacts:
            extents.pop(CODES, None)
        self._replace_manifest(
            replace(
                manifest,
                num_items=self.num_items,
                num_rows=manifest.num_rows + self._num_new,
                next_id=manifest.next_id + self._num_new,
                files=extents,
                is_complete=is_complete,
            )
        )

    def rewrite(self, rows: Rows, *, is_complete: bool | None = None) -> None:
        """Write these rows of the index as the next generation of its files, and commit.

        Their codes are copied too. Damaged codes are made again. If a row is damaged, raises
        IndexDirectoryError and changes nothing.
        """
        assert not self._num_new + self._num_removed
        assert self._artefacts.get(ENCODER) in (None, self.manifest.artefacts.get(ENCODER))
        manifest = self.manifest
        self._close_files()
        try:
            self._files = open_files(self.directory, new_files(manifest.generation + 1))
            append_copies(self._files, self.index, rows)
            extents = {kind: file.sync() for kind, file in self._files.items()}
            if ENCODER in self._artefacts:
                extents[CODES] = copy_codes(self.index, manifest, rows, commit=manifest.commit + 1)
            self._replace_manifest(
                replace(
                    manifest,
                    generation=manifest.generation + 1,
                    num_items=len(rows),
                    num_rows=len(rows),
                    files=extents,
                    is_complete=manifest.is_complete if is_complete is None else is_complete,
                )
            )
        finally:
            # Delete the earlier generation or, after an error, the incomplete new generation.
            self.manifest = read_manifest(self.directory)
            remove_leftovers(self.directory, self.manifest)
        self.index = Index.open(self.directory)
        self._removed_rows.clear()

    def close(self) -> None:
        """Drop the changes that were not committed, reclaim their space, and unlock the index."""
        self._close_files()
        with suppress(OSError, IndexDirectoryError):  # the next writer tries again
            # The manifest is read again: an error may have occurred after it was replaced.
            committed = read_manifest(self.directory)
            truncate_to_commit(self.directory, committed)
            # A reader may still need to open the files that the last commit replaced.
            remove_leftovers(self.directory, committed, self.index.manifest)
        self._lock.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _replace_manifest(self, manifest: Manifest) -> None:
        manifest = replace(
            manifest,
            commit=self.manifest.commit + 1,
            updated_at=now(),
            artefacts=dict(self._artefacts),
            model_files=dict(self._model_files),
            search=dict(self.search_options),
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
