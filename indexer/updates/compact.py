"""Giving back the room of removed items, once it is worth it."""

from dataclasses import dataclass
from pathlib import Path

from indexer.search.kinds import KindChoice
from indexer.search.update_structures import update_search
from indexer.storage.writer import IndexWriter
from training.devices import Device

WORTHWHILE_SHARE = 0.2
"""Of rows that are no items any more. What is copied is then at most four times what was removed, whatever the collection's size."""


@dataclass(frozen=True)
class Compaction:
    """What a compaction found and did."""

    num_items: int
    num_removed: int
    """Rows that held no item any more."""
    num_freed_bytes: int
    """0 where it was not worth it."""
    kind: str
    """How the index is searched now."""


def compact(
    directory: Path,
    *,
    force: bool = False,
    kind: KindChoice | None = None,
    memory_bytes: int | None = None,
    device: Device = "auto",
) -> Compaction:
    """Writes the items anew without the removed ones, if these are a fifth of the rows or more, or by `force`.

    With `kind` the index is searched so from now on, by structures made anew, on `device`. Readers keep what they opened. Until the
    commit both generations take their room on the disk; a full one leaves the old. Raises UserError.
    """
    with IndexWriter.open(directory) as writer:
        manifest = writer.manifest
        num_removed = manifest.num_rows - manifest.num_items
        before = sum(extent.num_bytes for extent in manifest.files.values())
        if num_removed and (force or num_removed >= WORTHWHILE_SHARE * manifest.num_rows):
            writer.rewrite(writer.index.rows)
        update_search(
            writer, kind=kind, memory_bytes=memory_bytes, device=device, anew=kind is not None
        )
        writer.commit()
        freed = before - sum(extent.num_bytes for extent in writer.manifest.files.values())
        return Compaction(manifest.num_items, num_removed, freed, writer.manifest.kind)
