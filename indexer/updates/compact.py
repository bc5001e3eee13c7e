"""`lookalike index compact`: reclaim the space of removed items."""

from dataclasses import dataclass
from pathlib import Path

from indexer.search.kinds import RequestedKind
from indexer.search.update_structures import update_search
from indexer.storage.manifest import Manifest
from indexer.storage.writer import IndexWriter
from training.devices import Device

WORTHWHILE_SHARE = 0.2
"""Minimum share of removed rows for a compaction without `force`. It limits the cost: for any size
of the index, such a compaction copies at most four times as many rows as it drops."""


@dataclass(frozen=True)
class Compaction:
    """The result of a compaction."""

    num_items: int
    num_removed: int
    """Number of removed rows before the compaction."""
    num_freed_bytes: int
    """Number of bytes by which the growing files shrank; 0 if they were not written again."""
    kind: str
    """The kind of search after the compaction."""


def compact(
    directory: Path,
    *,
    force: bool = False,
    kind: RequestedKind | None = None,
    memory_bytes: int | None = None,
    device: Device = "auto",
) -> Compaction:
    """Write the growing files again without the removed rows; raises UserError.

    The files are written again only if at least a fifth of the rows are removed rows, or with
    `force`. If `kind` is given, it becomes the index's kind of search, and the structures are made
    again on `device`. Readers can still use the files that they opened. Until the commit, the old
    and the new generation both need space on the disk. If the disk is full, the old generation
    stays.
    """
    with IndexWriter.open(directory) as writer:
        manifest = writer.manifest
        num_removed = manifest.num_rows - manifest.num_items
        if num_removed and (force or num_removed >= WORTHWHILE_SHARE * manifest.num_rows):
            writer.rewrite(writer.index.rows)
        makes_structures = kind is not None
        update_search(
            writer, kind=kind, memory_bytes=memory_bytes, device=device, anew=makes_structures
        )
        writer.commit()
        num_freed_bytes = _growing_bytes(manifest) - _growing_bytes(writer.manifest)
        return Compaction(manifest.num_items, num_removed, num_freed_bytes, writer.manifest.kind)


def _growing_bytes(manifest: Manifest) -> int:
    return sum(extent.num_bytes for extent in manifest.files.values())
