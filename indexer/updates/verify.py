"""`lookalike index verify`: compare every committed byte of an index with its checksums.

Each `Damage` names the file, the fault, and the command that mends it (see mend.py).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.array_types import Rows
from indexer.metrics import METRICS
from indexer.storage.codes import encode_command, facts_of
from indexer.storage.growing_files import measure_extent
from indexer.storage.index import Index
from indexer.storage.manifest import (
    COPY_FILE,
    ENCODER,
    MANIFEST_FILE,
    MODEL_FOLDER,
    PROBE,
    Extent,
    Manifest,
    parse_manifest,
    read_manifest_or_copy,
)
from indexer.storage.records import CODES, find_damage, hash_of
from training.files import file_sha256
from training.progress import Bar

Area = Literal["manifest", "items", "removals", "codes", "model", "artefact"]
"""The content of a damaged file. The field `part` of `verify --json` has these values."""
WRONG_BYTES = "does not match its checksum"


@dataclass(frozen=True)
class Damage:
    """A file that is missing, cut off or changed."""

    file: str
    part: Area
    what: str
    """The fault. It completes a sentence that begins with the file."""
    remedy: str


@dataclass(frozen=True)
class LostItem:
    """A damaged item.

    If the record is damaged, the id is unknown. If the path is damaged too, the path is unknown.
    """

    id: int | None
    path: str | None
    parts: tuple[str, ...]
    """The damaged parts: record, feature, path, thumbnail."""


@dataclass
class Verification:
    """The result of `verify`."""

    num_items: int
    num_bytes: int = 0
    """Number of bytes that were checked."""
    damages: list[Damage] = field(default_factory=list)
    lost: list[LostItem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.damages

    def has_damaged(self, *areas: Area) -> bool:
        """Whether there is damage in one of these areas."""
        return any(damage.part in areas for damage in self.damages)

    def add_damage(self, file: Path, area: Area, what: str, remedy: str) -> None:
        """Add a damaged file to the result."""
        self.damages.append(Damage(str(file), area, what, remedy))


def verify(directory: Path) -> Verification:
    """Check every committed byte of an index.

    Raises IndexDirectoryError if the manifest and its copy are lost.
    """
    while True:
        index = Index.salvage(directory)
        result, _ = check_index(index)
        # If a commit replaced files during the check, these files seem to be damaged. Then the
        # index is checked again.
        if result.is_clean or read_manifest_or_copy(directory).commit == index.manifest.commit:
            return result


def check_index(index: Index) -> tuple[Verification, Rows]:
    """Check an index that was opened with `Index.salvage`.

    Returns the result and the rows of the undamaged items, (n,). If the list of removed items is
    damaged, these rows include removed rows.
    """
    directory, manifest = index.directory, index.manifest
    result = Verification(num_items=manifest.num_items)
    _check_manifest(directory, result)
    _check_growing_files(index, result)
    claimed = np.arange(len(index.records)) if result.has_damaged("removals") else index.rows
    intact = _intact_rows(index, claimed)
    result.lost += [_lost_item(index, row) for row in np.setdiff1d(claimed, intact)]
    if num_lost := max(len(result.lost), manifest.num_items - len(intact)):
        result.add_damage(
            directory,
            "items",
            f"has lost {num_lost:,} of {manifest.num_items:,} items",
            f"to keep the other items, run: {mend_command(directory)}; "
            "then build or add again (only lost items are embedded again)",
        )
    _check_files_written_once(directory, manifest, result)
    return result, intact


def mend_command(directory: Path) -> str:
    """The command that mends an index."""
    return f"lookalike index verify {directory} --mend"


def probe_remedy(directory: Path) -> str:
    """The remedy to print when a damaged probe is dropped."""
    return f"fit it again with: lookalike index probe {directory}"


def encoder_remedy(directory: Path, manifest: Manifest) -> str:
    """The remedy to print when a damaged encoder and its codes are dropped."""
    facts = facts_of(manifest)
    assert facts
    return f"learn it again with: {encode_command(directory, facts)}"


def _check_manifest(directory: Path, result: Verification) -> None:
    for name, remedy in (
        (MANIFEST_FILE, f"to restore it from its copy, run: {mend_command(directory)}"),
        (COPY_FILE, f"to write it again, run: {mend_command(directory)}"),
    ):
        file = directory / name
        if name == COPY_FILE and not file.exists():
            continue  # no damage: the writer was killed, or the disk was full
        try:
            parse_manifest(file)
            result.num_bytes += file.stat().st_size
        except ValueError as error:
            result.add_damage(file, "manifest", str(error), remedy)


def _check_growing_files(index: Index, result: Verification) -> None:
    mend = mend_command(index.directory)
    for kind, extent in index.manifest.files.items():
        if not (problem := _extent_problem(index, kind, extent, result)):
            continue
        area: Area = "items"
        remedy = f"restore it from a copy, or run: {mend}"
        if kind == "removed":
            area = "removals"
            remedy += " (removed items may then return)"
        elif kind == CODES:
            area = "codes"
            remedy = f"to make the codes again, run: {mend}"
        result.add_damage(index.directory / extent.file, area, problem, remedy)


def _extent_problem(index: Index, kind: str, extent: Extent, result: Verification) -> str | None:
    """The fault in the committed part of a growing file; None if it has no fault."""
    try:
        measured = measure_extent(index.directory, extent)
    except FileNotFoundError:
        return "is missing"
    result.num_bytes += measured.num_bytes
    if measured.num_bytes < extent.num_bytes:
        return f"is cut off: {measured.num_bytes:,} of {extent.num_bytes:,} bytes are left"
    if measured != extent:
        return WRONG_BYTES
    if kind == CODES and not _has_code_for_every_row(index.manifest):
        return "does not have one code per row"
    return None


def _has_code_for_every_row(manifest: Manifest) -> bool:
    facts = facts_of(manifest)
    if facts is None:
        return False
    return manifest.files[CODES].num_bytes == manifest.num_rows * facts.num_bits // 8


def _intact_rows(index: Index, rows: Rows) -> Rows:
    """The rows among `rows` whose bytes all match their checksums, (n,)."""
    intact = []
    with Bar("Verifying", len(rows)) as bar:
        for row in rows:
            if not find_damage(index.records[row], index.item_bytes(row)):
                intact.append(row)
            bar.advance(1)
    return np.array(intact, np.int64)


def _lost_item(index: Index, row: int) -> LostItem:
    record, (path, _) = index.records[row], index.text(row)
    damage = tuple(find_damage(record, index.item_bytes(row)))
    has_record = "record" not in damage
    # A damaged record may point to the path of another item. Its path hash then differs.
    has_path = has_record or hash_of(path) == record["path_hash"]
    return LostItem(int(record["id"]) if has_record else None, path if has_path else None, damage)


def _check_files_written_once(directory: Path, manifest: Manifest, result: Verification) -> None:
    mend = mend_command(directory)
    model_remedy = (
        f"to copy it again from model {manifest.model_id[:12]}, run: {mend} --model MODEL"
    )
    for name, sha256 in manifest.model_files.items():
        _check_file(directory / MODEL_FOLDER / name, sha256, "model", model_remedy, result)
    for name, artefact in manifest.artefacts.items():
        remedy = f"to drop it, run: {mend}"
        if name in METRICS:
            remedy = f"to make it again, run: {mend}"
        elif name == PROBE:
            remedy += f"; then {probe_remedy(directory)}"
        elif name == ENCODER:
            again = encoder_remedy(directory, manifest)
            remedy = f"to drop it and the codes, run: {mend}; then {again}"
        _check_file(directory / artefact.file, artefact.sha256, "artefact", remedy, result)


def _check_file(file: Path, sha256: str, area: Area, remedy: str, result: Verification) -> None:
    try:
        is_intact = file_sha256(file) == sha256
        result.num_bytes += file.stat().st_size
    except FileNotFoundError:
        result.add_damage(file, area, "is missing", remedy)
        return
    if not is_intact:
        result.add_damage(file, area, WRONG_BYTES, remedy)
