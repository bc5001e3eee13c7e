"""`lookalike index remove`: remove items by id, path or label."""

from collections.abc import Sequence
from pathlib import Path

from indexer.array_types import Rows
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from training.naming import storable


def remove(
    directory: Path,
    *,
    ids: Sequence[int] = (),
    paths: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> int:
    """Remove all items that have one of these ids, paths or labels, and return their number.

    If an id, path or label is unknown, nothing is removed and IndexDirectoryError is raised.
    """
    with IndexWriter.open(directory) as writer:
        index = writer.index
        named: list[tuple[str, int | str, Rows]] = [
            *(("id", id, index.rows_of_ids([id])) for id in ids),
            *(("path", path, index.rows_of_path(storable(path))) for path in paths),
            *(("label", label, index.rows_of_label(storable(label))) for label in labels),
        ]
        for kind, name, rows in named:
            if not len(rows):
                raise IndexDirectoryError(
                    f"no item of {directory} has the {kind} {name}, so nothing was removed; "
                    "`lookalike index stats` lists the labels, "
                    "and `lookalike index export` writes all items"
                )
        removed = {int(id) for _, _, rows in named for id in index.records["id"][rows]}
        writer.remove(sorted(removed))
        writer.commit()
    return len(removed)
