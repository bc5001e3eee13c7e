"""Add and remove single items, with one commit for many changes. A service does this.

The images are decoded and embedded already. `lookalike index add` is for whole collections.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from indexer.array_types import Rows
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter

Outcome = Literal["added", "replaced", "unchanged"]


@dataclass(frozen=True)
class Addition:
    """An image to add.

    If `may_replace` is true, an item with the same path is replaced. Otherwise the path is changed
    if an item has it already.
    """

    item: NewItem
    may_replace: bool


@dataclass(frozen=True)
class Removal:
    """An item to remove."""

    id: int


@dataclass(frozen=True)
class Added:
    """The result of an Addition: the item that has the bytes of the image now."""

    id: int
    path: str
    label: str | None
    outcome: Outcome


@dataclass(frozen=True)
class Removed:
    """The result of a Removal. `was_item` is false if there was no such item."""

    id: int
    was_item: bool


def apply_changes(
    directory: Path, changes: Sequence[Addition | Removal], model_id: str
) -> tuple[list[Added | Removed], int]:
    """Make all changes in order with one commit. Return their results and the commit.

    As in `add`, an image whose bytes are in the index already is left out, except if it has the
    path of an item. The changes are on the disk when this function returns. Raises
    IndexDirectoryError if the index is in use, or if its model is not `model_id`, which made the
    features. Then nothing was changed.
    """
    with IndexWriter.open(directory) as writer:
        if writer.manifest.model_id != model_id:
            raise IndexDirectoryError(
                f"{directory} has another model than the one that embedded these images; "
                "send them again"
            )
        pending = _Changes(writer)
        results = [
            pending.add(change) if isinstance(change, Addition) else pending.remove(change)
            for change in changes
        ]
        writer.commit()
        return results, writer.manifest.commit


class _Changes:
    """The changes of one commit. Later changes see the earlier ones."""

    def __init__(self, writer: IndexWriter):
        self._writer, self._index = writer, writer.index
        self._new: dict[int, NewItem] = {}
        """The items that were added, by id."""
        self._removed: set[int] = set()

    def add(self, addition: Addition) -> Added:
        item = addition.item
        own = self._ids_of_path(item.path)
        same = self._ids_of_content(item.sha256)
        if not addition.may_replace and own and not same:
            item, own = replace(item, path=self._free_path(item)), []
        for id in same:
            if not (own and addition.may_replace) or self._text(id) == (item.path, item.label):
                return Added(id, *self._text(id), "unchanged")
        self._remove(own)
        id = self._writer.add(item)
        self._new[id] = item
        return Added(id, item.path, item.label, "replaced" if own else "added")

    def remove(self, removal: Removal) -> Removed:
        id = removal.id
        was_item = id in self._new or bool(self._current(self._index.rows_of_ids([id])))
        self._remove([id] if was_item else [])
        return Removed(id, was_item)

    def _remove(self, ids: Sequence[int]) -> None:
        self._writer.remove(ids)
        for id in ids:
            self._new.pop(id, None)
            self._removed.add(id)

    def _ids_of_path(self, path: str) -> list[int]:
        new = [id for id, item in self._new.items() if item.path == path]
        return new + self._current(self._index.rows_of_path(path))

    def _ids_of_content(self, sha256: str) -> list[int]:
        new = [id for id, item in self._new.items() if item.sha256 == sha256]
        return new + self._current(self._index.rows_of_content(sha256))

    def _current(self, rows: Rows) -> list[int]:
        """The ids of the rows whose items have not been removed by these changes."""
        ids = self._index.records["id"][rows].tolist()
        return [id for id in ids if id not in self._removed]

    def _text(self, id: int) -> tuple[str, str | None]:
        """The path and the label of an item."""
        if id in self._new:
            return self._new[id].path, self._new[id].label
        return self._index.text(int(self._index.rows_of_ids([id])[0]))

    def _free_path(self, item: NewItem) -> str:
        """A path that contains the start of the SHA-256, and that no item has."""
        path = PurePosixPath(item.path)
        for num_digits in range(8, 65, 8):
            name = str(path.with_name(f"{path.stem}-{item.sha256[:num_digits]}{path.suffix}"))
            if not self._ids_of_path(name):
                return name
        raise IndexDirectoryError(f"the index has an item for every name of {item.path}")
