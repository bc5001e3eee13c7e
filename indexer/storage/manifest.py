"""Read and write manifest.json, the list of an index's files and their checksums.

A writer commits its changes by replacing the manifest. Then it writes a copy of the manifest, so
the copy never contains more than was committed. If a writer is killed after it has replaced the
manifest and before it has written the copy, the copy describes the previous commit. The files that
the copy names are kept until the copy is written again. So the commit in the copy can always be
restored completely.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from indexer.storage.distance_comparison import DistanceComparison, parse_comparison
from training.devices import Precision
from training.errors import UserError
from training.files import sync, write_atomically
from training.network.model import INT8_FILE, ModelCard

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"
COPY_FILE = f"copy/{MANIFEST_FILE}"
MODEL_FOLDER = "model"
"""The folder with the index's own copy of its model."""
ENCODER, PROBE, MAP, MAP_PICTURE, STAMPS = "autoencoder", "probe", "map", "mappicture", "stamps"
"""Names of artefacts. An index with codes has the artefact ENCODER. A FAISS structure has the name
of its metric (see indexer/metrics.py)."""
REBUILD = "restore it from a copy, or build the index again in another directory"


class IndexDirectoryError(UserError):
    """An index directory is missing, damaged or in use, or has an unexpected format or model."""


@dataclass(frozen=True)
class Extent:
    """The committed part of a growing file. Bytes after its end belong to no commit."""

    file: str
    num_bytes: int = 0
    crc32: int = 0
    """The CRC-32 of these bytes."""


@dataclass(frozen=True)
class Artefact:
    """A file that is made from the items and written once.

    `facts` contain what a reader of the file needs to know.
    """

    file: str
    num_bytes: int
    sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of manifest.json."""

    model_id: str
    commit: int = 0
    """The number of the commit; each commit adds one."""
    generation: int = 0
    """The number in the names of the growing files. A compaction writes the next generation."""
    num_items: int = 0
    num_rows: int = 0
    """Number of rows in the growing files, including the rows of removed items."""
    next_id: int = 1
    feature_precision: Precision = "float32"
    """The precision of the network that made the features. manifest.json does not contain float32.
    """
    is_complete: bool = False
    """Whether the last build reached its end. An index can be used even if its build was
    interrupted."""
    files: Mapping[str, Extent] = field(default_factory=dict)
    """The growing files by kind: records, features, texts, thumbnails and removed. If the index has
    an encoder, there are also codes."""
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    """The artefacts by name."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """The last values of `--kind` and `--memory`, as `kind` and `memory_bytes`, and the last
    comparison of the distances. What was never set or measured is missing."""
    model_files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file in the index's copy of the model, by file name."""
    created_at: str
    updated_at: str
    format_version: int = FORMAT_VERSION
    sha256: str = ""
    """SHA-256 of the manifest's own text with this field empty."""

    @property
    def kind(self) -> str:
        """The kind of search for Euclidean neighbours. `flat` is an exact scan of the features."""
        structure = self.artefacts.get("euclidean")
        return "flat" if structure is None else str(structure.facts["kind"])

    @property
    def has_codes(self) -> bool:
        """Whether the index can be searched by Hamming distance."""
        return ENCODER in self.artefacts

    @property
    def distance_comparison(self) -> DistanceComparison | None:
        """The last comparison of the distances; None if they were never compared."""
        return parse_comparison(self.search)

    def recall_at_10(self, metric: str) -> float:
        """The share of the 10 nearest items that a search by this metric returns.

        The share was measured when the structure of this metric was made. An exact scan needs no
        structure, and its recall is 1.
        """
        structure = self.artefacts.get(metric)
        return 1.0 if structure is None else float(structure.facts["recall_at_10"])


def check_model(
    manifest: Manifest, directory: Path, card: ModelCard, given: str, remedy: str
) -> None:
    """Raise IndexDirectoryError if the index in `directory` was not built with this model.

    If the features are int8, the network in int8 must be the same too. In the message, `given`
    names the model and `remedy` says what to do.
    """
    if card.id != manifest.model_id:
        raise IndexDirectoryError(
            f"{directory} was built with model {manifest.model_id[:12]} "
            f"but {given} is model {card.id[:12]}; {remedy}"
        )
    built_with = manifest.model_files.get(INT8_FILE, "none")
    own = card.int8.sha256 if card.int8 else "none"
    if manifest.feature_precision == "int8" and own != built_with:
        raise IndexDirectoryError(
            f"the features in {directory} were computed with {INT8_FILE} {built_with[:12]} "
            f"but {given} has {own[:12]}; {remedy}"
        )


def is_index(directory: Path) -> bool:
    """Whether the directory contains an index. The index may be damaged."""
    return any((directory / name).is_file() for name in (MANIFEST_FILE, COPY_FILE))


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest; raises IndexDirectoryError if even a single byte has changed."""
    if not is_index(directory):
        problem = (
            f"has no {MANIFEST_FILE}, so it is not an index"
            if directory.exists()
            else "does not exist"
        )
        raise IndexDirectoryError(
            f"{directory} {problem}; "
            f"make one with: lookalike index build DATA --model MODEL --out {directory}"
        )
    file = directory / MANIFEST_FILE
    try:
        return parse_manifest(file)
    except ValueError as error:
        remedy = (
            f"to restore it from its copy, run: lookalike index verify {directory} --mend"
            if read_copy(directory)
            else REBUILD
        )
        raise IndexDirectoryError(f"{file} {error}; {remedy}") from error


def read_copy(directory: Path) -> Manifest | None:
    """Read the manifest's copy; returns None if the copy is missing or damaged.

    The copy may be older than the manifest by one commit.
    """
    try:
        return parse_manifest(directory / COPY_FILE)
    except (ValueError, IndexDirectoryError):
        return None


def read_manifest_or_copy(directory: Path) -> Manifest:
    """Read the manifest. If it is missing or damaged, read its copy.

    Raises IndexDirectoryError if both are lost.
    """
    try:
        return read_manifest(directory)
    except IndexDirectoryError as error:
        if isinstance(error.__cause__, ValueError) and (copy := read_copy(directory)):
            return copy
        raise


def restore_manifest(directory: Path) -> None:
    """Restore a missing or damaged manifest from its copy.

    Raises IndexDirectoryError if both are lost.
    """
    try:
        read_manifest(directory)
    except IndexDirectoryError:
        write_manifest(read_manifest_or_copy(directory), directory)


def parse_manifest(file: Path) -> Manifest:
    """Read the file of a manifest or of its copy.

    Raises ValueError if the file is missing or damaged. Raises IndexDirectoryError if the file has
    another format.
    """
    if not file.is_file():
        raise ValueError("is missing")
    try:
        text = file.read_bytes().decode()  # read_text turns \r into \n
        content = json.loads(text)
        version = content["format_version"]
        has_checksum = "sha256" in content or version == FORMAT_VERSION  # format 1 had none
        if has_checksum and _checksum(text.replace(content["sha256"], "", 1)) != content["sha256"]:
            raise ValueError("its own checksum does not match")
        if version != FORMAT_VERSION:
            raise IndexDirectoryError(
                f"{file} has format {version}, but this program reads format {FORMAT_VERSION}; "
                "build the index again in another directory with: "
                "lookalike index build DATA --model MODEL --out INDEX; "
                "or use the release that wrote it"
            )
        files = {kind: Extent(**extent) for kind, extent in content["files"].items()}
        artefacts = {name: Artefact(**artefact) for name, artefact in content["artefacts"].items()}
        return Manifest(**{**content, "files": files, "artefacts": artefacts})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"is damaged ({error})") from error


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Replace the manifest atomically, then write its copy."""
    sync(directory)  # the files that it names must still be there after a power cut
    write_atomically(directory / MANIFEST_FILE, _text(manifest))
    write_copy(directory)


def write_copy(directory: Path) -> None:
    """Bring the copy up to date with the manifest.

    An OSError, such as a full disk, is ignored. The commit is valid without its copy, and the next
    writer tries again.
    """
    content, copy = (directory / MANIFEST_FILE).read_bytes(), directory / COPY_FILE
    with suppress(OSError):
        copy.parent.mkdir(exist_ok=True)
        if not copy.is_file() or copy.read_bytes() != content:
            write_atomically(copy, content)


def _text(manifest: Manifest) -> bytes:
    def dump(sha256: str) -> str:
        content = asdict(replace(manifest, sha256=sha256))
        if manifest.feature_precision == "float32":
            del content["feature_precision"]  # so that earlier programs can read the index
        return json.dumps(content, indent=2) + "\n"

    return dump(_checksum(dump(""))).encode()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
