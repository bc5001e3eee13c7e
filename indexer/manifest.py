"""manifest.json: what an index is, and which commit of it counts. Replacing it is the commit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.model import write_atomically

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
REBUILD = "restore it from a copy, or build the index again in another directory"


class IndexDirectoryError(UserError):
    """An index directory that is missing, damaged, of another format, in use, or of another model."""


@dataclass(frozen=True)
class Extent:
    """How much of a growing file was committed; what lies beyond belongs to no commit."""

    num_bytes: int = 0
    crc32: int = 0
    """Of these bytes."""


@dataclass(frozen=True)
class Artefact:
    """A file that is written once, made from the items, and the facts that its readers need."""

    file: str
    num_bytes: int
    sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What manifest.json says."""

    model_id: str
    commit: int = 0
    """Counts up."""
    generation: int = 0
    """Of the growing files; a compaction begins the next."""
    num_items: int = 0
    """Items of this commit."""
    num_rows: int = 0
    """Rows of the growing files; more than `num_items` once items have been removed."""
    next_id: int = 1
    is_complete: bool = False
    """Whether the last build reached its end; an interrupted one's commits count all the same."""
    files: Mapping[str, Extent] = field(default_factory=dict)
    """By kind: records, features, texts, thumbnails, removed."""
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    """By purpose."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """What `--kind` and `--memory` last asked for, where they did: `kind`, `memory_bytes`."""
    model_files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the index's copy of the model, by file name."""
    created_at: str
    updated_at: str
    format_version: int = FORMAT_VERSION
    sha256: str = ""
    """Of the manifest's own text, this line empty."""

    @property
    def kind(self) -> str:
        """How Euclidean neighbours are searched; `flat` is an exact scan of the features."""
        return str(self.artefacts["euclidean"].facts["kind"]) if "euclidean" in self.artefacts else "flat"

    def recall_at_10(self, metric: str) -> float:
        """The share of the 10 nearest by a metric that are found, as measured when its structure was made; an exact scan finds all."""
        return float(self.artefacts[metric].facts["recall_at_10"]) if metric in self.artefacts else 1.0


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest; raises IndexDirectoryError, for a single changed byte too."""
    file = directory / MANIFEST_FILE
    if not file.is_file():
        what = f"has no {MANIFEST_FILE}, so it is no index" if directory.exists() else "does not exist"
        raise IndexDirectoryError(f"{directory} {what}; make one with: lookalike index build DATA --model MODEL --out {directory}")
    try:
        text = file.read_bytes().decode()  # not read_text, which takes a carriage return for a line feed
        content = json.loads(text)
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise IndexDirectoryError(
                f"{file} has format {version}, this program reads {FORMAT_VERSION}; build the index again in another directory, "
                "or use the release that wrote it"
            )
        files = {kind: Extent(**extent) for kind, extent in content["files"].items()}
        artefacts = {name: Artefact(**artefact) for name, artefact in content["artefacts"].items()}
        manifest = Manifest(**{**content, "files": files, "artefacts": artefacts})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise IndexDirectoryError(f"{file} is damaged ({error}); {REBUILD}") from error
    if text != _text(manifest):
        raise IndexDirectoryError(f"{file} is damaged (its own checksum does not fit); {REBUILD}")
    return manifest


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Replaces the manifest, atomically."""
    write_atomically(directory / MANIFEST_FILE, _text(manifest).encode())


def _text(manifest: Manifest) -> str:
    def dump(sha256: str) -> str:
        return json.dumps(asdict(replace(manifest, sha256=sha256)), indent=2) + "\n"

    return dump(hashlib.sha256(dump("").encode()).hexdigest())
