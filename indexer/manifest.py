"""manifest.json: what an index is, and which commit of it counts. Replacing it is the commit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.errors import UserError
from training.model import write_atomically

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


class IndexDirectoryError(UserError):
    """An index directory that is missing, damaged, of another format, in use, or of another model."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What manifest.json says."""

    model_id: str
    num_items: int
    """Items of this commit."""
    num_rows: int
    """Rows of the features file that were committed; more than `num_items` once items have been removed."""
    commit: int
    """Counts up; an item is there from its `added_commit` up to its `removed_commit`."""
    features_file: str
    is_complete: bool
    """Whether the last build reached its end; an interrupted one's commits count all the same."""
    kind: str = "flat"
    """The FAISS index: `flat` is an exact scan of the features."""
    code_bits: int | None = None
    created_at: str
    updated_at: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by file name, of the files that never change; features have a CRC-32 a row, beside their item."""
    format_version: int = FORMAT_VERSION


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest; raises IndexDirectoryError."""
    file = directory / MANIFEST_FILE
    if not file.is_file():
        what = f"has no {MANIFEST_FILE}, so it is no index" if directory.exists() else "does not exist"
        raise IndexDirectoryError(f"{directory} {what}; make one with: lookalike index build DATA --model MODEL --out {directory}")
    try:
        content = json.loads(file.read_text("utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise IndexDirectoryError(
                f"{file} has format {version}, this program reads {FORMAT_VERSION}; build the index again with this release"
            )
        return Manifest(**content)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise IndexDirectoryError(f"{file} is damaged ({error}); restore it from a copy, or build the index again") from error


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Replaces the manifest, atomically."""
    write_atomically(directory / MANIFEST_FILE, json.dumps(asdict(manifest), indent=2).encode() + b"\n")
