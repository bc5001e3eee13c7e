"""manifest.json: what an index is, and which commit of it counts. Replacing it is the commit.

Its copy is written after it, so it never says more than was committed; what a killed writer left it to say is the commit before. Files
that the copy names are kept until it has been written again: what is restored from it is whole.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.files import sync, write_atomically

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"
COPY_FILE = f"copy/{MANIFEST_FILE}"
ENCODER = "autoencoder"
"""The artefact that an index with codes has."""
REBUILD = "restore it from a copy, or build the index again in another directory"


class IndexDirectoryError(UserError):
    """An index directory that is missing, damaged, of another format, in use, or of another model."""


@dataclass(frozen=True)
class Extent:
    """How much of a growing file was committed; what lies beyond belongs to no commit."""

    file: str
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
    """By kind: records, features, texts, thumbnails, removed and, in an index with an encoder, codes."""
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
        return (
            str(self.artefacts["euclidean"].facts["kind"])
            if "euclidean" in self.artefacts
            else "flat"
        )

    @property
    def has_codes(self) -> bool:
        """Whether it can be searched by Hamming distance."""
        return ENCODER in self.artefacts

    def recall_at_10(self, metric: str) -> float:
        """The share of the 10 nearest by a metric that are found, as measured when its structure was made; an exact scan finds all."""
        return (
            float(self.artefacts[metric].facts["recall_at_10"]) if metric in self.artefacts else 1.0
        )


def is_index(directory: Path) -> bool:
    """Whether there is an index, if perhaps a damaged one."""
    return any((directory / name).is_file() for name in (MANIFEST_FILE, COPY_FILE))


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest; raises IndexDirectoryError, for a single changed byte too."""
    if not is_index(directory):
        what = (
            f"has no {MANIFEST_FILE}, so it is no index" if directory.exists() else "does not exist"
        )
        raise IndexDirectoryError(
            f"{directory} {what}; make one with: lookalike index build DATA --model MODEL --out {directory}"
        )
    file = directory / MANIFEST_FILE
    try:
        return parse_manifest(file)
    except ValueError as error:
        remedy = (
            f"run: lookalike index verify {directory} --mend, which restores it from its copy"
            if read_copy(directory)
            else REBUILD
        )
        raise IndexDirectoryError(f"{file} {error}; {remedy}") from error


def read_copy(directory: Path) -> Manifest | None:
    """The manifest's copy, which may be of an earlier commit; None where it is missing or damaged."""
    try:
        return parse_manifest(directory / COPY_FILE)
    except (ValueError, IndexDirectoryError):
        return None


def read_either(directory: Path) -> Manifest:
    """The manifest or, where it is missing or damaged, its copy; raises IndexDirectoryError where that is lost too."""
    try:
        return read_manifest(directory)
    except IndexDirectoryError as error:
        if isinstance(error.__cause__, ValueError) and (copy := read_copy(directory)):
            return copy
        raise


def restore_manifest(directory: Path) -> None:
    """Writes a missing or damaged manifest anew, as its copy has it; raises IndexDirectoryError where that is lost too."""
    try:
        read_manifest(directory)
    except IndexDirectoryError:
        write_manifest(read_either(directory), directory)


def parse_manifest(file: Path) -> Manifest:
    """Reads the manifest or its copy; raises ValueError, with what is wrong with it, and IndexDirectoryError for another format."""
    if not file.is_file():
        raise ValueError("is missing")
    try:
        text = (
            file.read_bytes().decode()
        )  # not read_text, which takes a carriage return for a line feed
        content = json.loads(text)
        version = content["format_version"]
        is_sealed = "sha256" in content or version == FORMAT_VERSION  # the first format was not
        if is_sealed and _checksum(text.replace(content["sha256"], "", 1)) != content["sha256"]:
            raise ValueError("its own checksum does not fit")
        if version != FORMAT_VERSION:
            raise IndexDirectoryError(
                f"{file} has format {version}, this program reads {FORMAT_VERSION}; build the index again in another directory, "
                "or use the release that wrote it"
            )
        files = {kind: Extent(**extent) for kind, extent in content["files"].items()}
        artefacts = {name: Artefact(**artefact) for name, artefact in content["artefacts"].items()}
        return Manifest(**{**content, "files": files, "artefacts": artefacts})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"is damaged ({error})") from error


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Replaces the manifest, atomically, and then its copy."""
    sync(directory)  # the files that it names have to be there after a power cut
    write_atomically(directory / MANIFEST_FILE, _text(manifest))
    write_copy(directory)


def write_copy(directory: Path) -> None:
    """Brings the copy up to date with the manifest, if there is room: the commit counts without it, and the next writer tries again."""
    content, copy = (directory / MANIFEST_FILE).read_bytes(), directory / COPY_FILE
    with suppress(OSError):
        copy.parent.mkdir(exist_ok=True)
        if not copy.is_file() or copy.read_bytes() != content:
            write_atomically(copy, content)


def _text(manifest: Manifest) -> bytes:
    def dump(sha256: str) -> str:
        return json.dumps(asdict(replace(manifest, sha256=sha256)), indent=2) + "\n"

    return dump(_checksum(dump(""))).encode()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
