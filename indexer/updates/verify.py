"""Whether every committed byte of an index is the one that was written; what is lost where one is not, and how to mend it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.array_types import Rows
from indexer.learned.probe import ARTEFACT as PROBE
from indexer.metrics import METRICS
from indexer.search.update_structures import update_search
from indexer.storage.codes import encoding, facts_of, load_encoder
from indexer.storage.growing_files import read_extent
from indexer.storage.index import MODEL_FOLDER, Index
from indexer.storage.manifest import (
    COPY_FILE,
    ENCODER,
    MANIFEST_FILE,
    Manifest,
    parse_manifest,
    read_either,
)
from indexer.storage.records import CODES, damaged_parts, hash_of
from indexer.storage.writer import IndexWriter
from training.files import file_sha256
from training.progress import Bar, console

Part = Literal["manifest", "items", "removals", "codes", "model", "artefact"]


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written, what of the index it holds, in a sentence what is wrong, and how to mend it."""

    file: str
    part: Part
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

    def has_damaged(self, *parts: Part) -> bool:
        """Whether one of these is not as it was written."""
        return any(damage.part in parts for damage in self.damages)


def verify(directory: Path) -> Verification:
    """Checks every committed byte; raises IndexDirectoryError where the manifest is damaged and its copy too."""
    while True:
        index = Index.salvage(directory)
        found, _ = _found_in(index)
        # What a commit has replaced meanwhile, or a compaction deleted, is no damage.
        if found.is_clean or read_either(directory).commit == index.manifest.commit:
            return found


def mend(directory: Path, model_directory: Path | None = None) -> int:
    """Restores what can be restored and drops the rest; the number of items kept.

    The manifest comes back from its copy, the index's model from `model_directory`, if that is the same; structures and codes are made
    again; a damaged probe is dropped, and a damaged encoder with its codes. Only where items, or the list of removed ones, are damaged
    are the whole ones written anew; the index then counts as incomplete. A clean one is left as it is. Raises IndexDirectoryError where
    there is no manifest to go by.
    """
    with IndexWriter.salvage(directory) as writer:
        found, rows = _found_in(writer.index)
        if found.has_damaged("model") and model_directory:
            writer.restore_model(model_directory)
        dropped = _drop_artefacts(writer, found)
        num_kept = found.num_items
        if found.has_damaged("items", "removals"):
            # A path has one item: the latest, where removed ones are back.
            latest = {writer.index.text(row)[0]: row for row in rows}
            writer.rewrite(np.array(sorted(latest.values()), np.int64), is_complete=False)
            num_kept = len(latest)
        elif (
            found.has_damaged("codes")
            and ENCODER not in dropped
            and (encoder := load_encoder(directory, writer.manifest))
        ):
            writer.write_codes(encoder)
        writer.commit()
        if dropped & set(METRICS):
            update_search(writer)
            writer.commit()
    return num_kept


def _drop_artefacts(writer: IndexWriter, found: Verification) -> set[str]:
    """Takes out, with the next commit, the artefacts that are damaged; their names."""
    files = {damage.file for damage in found.damages}
    # One made without the items that are back would never find them.
    is_any_stale = found.has_damaged("removals")
    artefacts = writer.manifest.artefacts.items()
    dropped = {
        name
        for name, artefact in artefacts
        if (is_any_stale and name != ENCODER) or str(writer.directory / artefact.file) in files
    }
    for name in sorted(dropped):
        writer.drop_artefact(name)
    if PROBE in dropped:
        console.print(f"the probe is dropped; {_refit(writer.directory)}")
    if ENCODER in dropped:
        console.print(
            f"the encoder and its codes are dropped; {_relearn(writer.directory, writer.manifest)}"
        )
    return dropped


def _found_in(index: Index) -> tuple[Verification, Rows]:
    """What is damaged, and the rows of the items that are not."""
    directory, manifest = index.directory, index.manifest
    found = Verification(num_items=manifest.num_items)
    _check_manifest(directory, found)
    _check_growing_files(index, found)
    claimed = np.arange(len(index.records)) if found.has_damaged("removals") else index.rows
    good = _good_rows(index, claimed)
    found.lost += [_lost_item(index, row) for row in np.setdiff1d(claimed, good)]
    if num_lost := max(len(found.lost), manifest.num_items - len(good)):
        found.damages.append(
            Damage(
                file=str(directory),
                part="items",
                what=f"has lost {num_lost:,} of {manifest.num_items:,} items",
                remedy=f"lookalike index verify {directory} --mend, which keeps the others; "
                "then build or add again: only what is lost is embedded anew",
            )
        )
    _check_files_written_once(directory, manifest, found)
    return found, good


def _lost_item(index: Index, row: int) -> LostItem:
    record, (path, _) = index.records[row], index.text(row)
    damaged = tuple(damaged_parts(record, index.parts(row)))
    is_told = "record" not in damaged
    return LostItem(
        int(record["id"]) if is_told else None,
        path if is_told or hash_of(path) == record["path_hash"] else None,
        damaged,
    )


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
    for kind, extent in index.manifest.files.items():
        file = index.directory / extent.file
        try:
            read = read_extent(index.directory, extent)
        except FileNotFoundError:
            what = "is missing"
        else:
            found.num_bytes += read.num_bytes
            if read == extent and (kind != CODES or _is_a_code_a_row(index.manifest)):
                continue
            what = "holds bytes that were not written so"
            if read == extent:
                what = "is older than the items"
            elif read.num_bytes < extent.num_bytes:
                what = f"is cut off: {read.num_bytes:,} of {extent.num_bytes:,} bytes are left"
        part: Part = "removals" if kind == "removed" else "codes" if kind == CODES else "items"
        mending = f"lookalike index verify {index.directory} --mend"
        remedy = f"restore it from a copy, or: {mending}"
        if part == "removals":
            remedy += ", after which items that had been removed may be back"
        elif part == "codes":
            remedy = f"{mending}, which makes the codes again"
        found.damages.append(Damage(str(file), part, what, remedy))


def _check_files_written_once(directory: Path, manifest: Manifest, found: Verification) -> None:
    mending = f"lookalike index verify {directory} --mend"
    again = (
        f"{mending} --model MODEL, with the model {manifest.model_id[:12]}, which copies it again"
    )
    for name, sha256 in manifest.model_files.items():
        _check_file(directory / MODEL_FOLDER / name, sha256, "model", again, found)
    for name, artefact in manifest.artefacts.items():
        again = (
            f"{mending}, which makes it again" if name in METRICS else f"{mending}, which drops it"
        )
        if name == PROBE:
            again += f"; then {_refit(directory)}"
        elif name == ENCODER:
            again = f"{mending}, which drops it and the codes; then {_relearn(directory, manifest)}"
        _check_file(directory / artefact.file, artefact.sha256, "artefact", again, found)


def _check_file(file: Path, sha256: str, part: Part, remedy: str, found: Verification) -> None:
    try:
        is_whole = file_sha256(file) == sha256
        found.num_bytes += file.stat().st_size
    except FileNotFoundError:
        found.damages.append(Damage(str(file), part, "is missing", remedy))
        return
    if not is_whole:
        found.damages.append(
            Damage(str(file), part, "holds bytes that were not written so", remedy)
        )


def _check_manifest(directory: Path, found: Verification) -> None:
    mending = f"lookalike index verify {directory} --mend"
    for name, remedy in (
        (MANIFEST_FILE, f"{mending}, which restores it from its copy"),
        (COPY_FILE, f"{mending}, which writes it again"),
    ):
        file = directory / name
        if name == COPY_FILE and not file.exists():
            continue  # its writer was killed, or had no room
        try:
            parse_manifest(file)
            found.num_bytes += file.stat().st_size
        except ValueError as error:
            found.damages.append(Damage(str(file), "manifest", str(error), remedy))


def _refit(directory: Path) -> str:
    return f"fit it again with: lookalike index probe {directory}"


def _relearn(directory: Path, manifest: Manifest) -> str:
    facts = facts_of(manifest)
    assert facts
    return f"learn it again with: {encoding(directory, facts)}"


def _is_a_code_a_row(manifest: Manifest) -> bool:
    facts = facts_of(manifest)
    return (
        facts is not None
        and manifest.files[CODES].num_bytes == manifest.num_rows * facts.num_bits // 8
    )
