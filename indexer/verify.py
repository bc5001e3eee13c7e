"""Whether every committed byte of an index is the one that was written; what is lost where one is not, and how to mend it."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.index import MODEL_FOLDER, Index, Rows
from indexer.manifest import MANIFEST_FILE, Extent, Manifest, read_manifest
from indexer.records import GROWING_FILES, damaged_parts, file_name, hash_of
from indexer.writer import IndexWriter
from training.model import file_sha256
from training.progress import Bar

CHUNK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written, in a sentence, and how to mend it."""

    file: str
    what: str
    remedy: str


@dataclass(frozen=True)
class LostItem:
    """An item with a damaged part. Where its record is damaged, the id cannot be told, and where its name is too, the path neither."""

    id: int | None
    path: str | None
    parts: tuple[str, ...]


@dataclass
class Verification:
    """What `verify` found; nothing, where the index is clean."""

    num_items: int
    num_bytes: int = 0
    """How many were checked."""
    damages: list[Damage] = field(default_factory=list)
    lost: list[LostItem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.damages


def verify(directory: Path) -> Verification:
    """Checks every committed byte; raises IndexDirectoryError where the manifest itself is damaged."""
    while True:
        index = Index.salvage(directory)
        found, _ = _found_in(index)
        # What a commit has replaced meanwhile, or a compaction deleted, is no damage.
        if found.is_clean or read_manifest(directory).commit == index.manifest.commit:
            return found


def mend(directory: Path) -> int:
    """Writes the undamaged items anew, without what is lost and without damaged artefacts; the number of items kept.

    Raises IndexDirectoryError where there is no manifest to go by. What is kept is whole; the index counts as incomplete. A clean one
    is left as it is.
    """
    with IndexWriter.salvage(directory) as writer:
        found, rows = _found_in(writer.index)
        if found.is_clean:
            return found.num_items
        files = {damage.file for damage in found.damages}
        for name, artefact in writer.manifest.artefacts.items():
            # One made without the items that are back would never find them.
            if str(directory / artefact.file) in files or not _are_removals_told(writer.index, found):
                writer.drop_artefact(name)
        # A path has one item: the latest, where removed ones are back.
        latest = {writer.index.text(row)[0]: row for row in rows}
        writer.rewrite(np.array(sorted(latest.values()), np.int64), is_complete=False)
    return len(latest)


def _found_in(index: Index) -> tuple[Verification, Rows]:
    """What is damaged, and the rows of the items that are not."""
    directory, manifest = index.directory, index.manifest
    found = Verification(num_items=manifest.num_items)
    _check_growing_files(index, found)
    claimed = index.rows if _are_removals_told(index, found) else np.arange(len(index.records))
    good = _good_rows(index, claimed)
    found.lost += [_lost_item(index, row) for row in np.setdiff1d(claimed, good)]
    if num_lost := max(len(found.lost), manifest.num_items - len(good)):
        found.damages.append(
            Damage(
                file=str(directory), what=f"has lost {num_lost:,} of {manifest.num_items:,} items",
                remedy=f"lookalike index verify {directory} --mend, which keeps the others; "
                "then build or add again: only what is lost is embedded anew",
            )
        )  # fmt: skip
    _check_files_written_once(directory, manifest, found)
    return found, good


def _are_removals_told(index: Index, found: Verification) -> bool:
    file = str(index.directory / file_name("removed", index.manifest.generation))
    return file not in {damage.file for damage in found.damages}


def _lost_item(index: Index, row: int) -> LostItem:
    record, (path, _) = index.records[row], index.text(row)
    damaged = tuple(damaged_parts(record, index.parts(row)))
    is_told = "record" not in damaged
    return LostItem(int(record["id"]) if is_told else None, path if is_told or hash_of(path) == record["path_hash"] else None, damaged)


def _good_rows(index: Index, rows: Rows) -> Rows:
    """Those of these rows of which every byte is as it was written."""
    with Bar("Verifying", len(rows)) as bar:
        good = []
        for row in rows:
            if not damaged_parts(index.records[row], index.parts(row)):
                good.append(row)
            bar.advance(1)
    return np.array(good, np.int64)


def _check_growing_files(index: Index, found: Verification) -> None:
    for kind in GROWING_FILES:
        file, extent = index.directory / file_name(kind, index.manifest.generation), index.manifest.files[kind]
        try:
            read = _extent(file, extent.num_bytes)
        except FileNotFoundError:
            what = "is missing"
        else:
            found.num_bytes += read.num_bytes
            if read == extent:
                continue
            what = "holds bytes that were not written so"
            if read.num_bytes < extent.num_bytes:
                what = f"is cut off: {read.num_bytes:,} of {extent.num_bytes:,} bytes are left"
        remedy = f"restore it from a copy, or: lookalike index verify {index.directory} --mend"
        if kind == "removed":
            remedy += ", after which items that had been removed may be back"
        found.damages.append(Damage(str(file), what, remedy))


def _check_files_written_once(directory: Path, manifest: Manifest, found: Verification) -> None:
    again = f"restore it from a copy, or copy it from the model {manifest.model_id[:12]}"
    wanted = [(directory / MODEL_FOLDER / name, sha256, again) for name, sha256 in manifest.model_files.items()]
    again = f"lookalike index verify {directory} --mend takes it out; then make it again"
    wanted += [(directory / artefact.file, artefact.sha256, again) for artefact in manifest.artefacts.values()]
    for file, sha256, remedy in wanted:
        try:
            is_whole = file_sha256(file) == sha256
            found.num_bytes += file.stat().st_size
        except FileNotFoundError:
            found.damages.append(Damage(str(file), "is missing", remedy))
            continue
        if not is_whole:
            found.damages.append(Damage(str(file), "holds bytes that were not written so", remedy))
    found.num_bytes += (directory / MANIFEST_FILE).stat().st_size


def _extent(file: Path, num_bytes: int) -> Extent:
    """What there is of a file's first `num_bytes`."""
    crc, num_read = 0, 0
    with file.open("rb") as stream:
        while chunk := stream.read(min(CHUNK_BYTES, num_bytes - num_read)):
            crc = zlib.crc32(chunk, crc)
            num_read += len(chunk)
    return Extent(num_read, crc)
