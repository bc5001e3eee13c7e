"""Make, lock and clean up the directory of an index."""

import fcntl
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from indexer.storage.growing_files import new_files, open_files
from indexer.storage.manifest import (
    MODEL_FOLDER,
    IndexDirectoryError,
    Manifest,
    is_index,
    read_copy,
    write_manifest,
)
from indexer.storage.records import GROWING_FILES
from training.devices import Precision
from training.files import TEMPORARY_SUFFIX, file_sha256, replacing
from training.network.model import CARD_FILE, INT8_FILE, ONNX_FILE, ModelCard, check_file

LOCK_FILE = ".lock"
ARTEFACT_SUFFIXES = ("faiss", "json", "npz", "png")
_GROWING_FILE = "|".join(rf"{kind}-\d+\.{suffix}" for kind, suffix in GROWING_FILES.items())
_ARTEFACT = rf"[a-z]+-\d+\.(?:{'|'.join(ARTEFACT_SUFFIXES)})"
WRITTEN_FILE = re.compile(rf"{_GROWING_FILE}|{_ARTEFACT}|\..*\{TEMPORARY_SUFFIX}")
"""Matches the names of growing files, artefacts and temporary files. An interrupted writer may
leave such files behind."""


def make_directory(directory: Path) -> None:
    """Make the directory of an index.

    Raises IndexDirectoryError if the directory cannot be made, or if it contains other files and is
    not an index.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexDirectoryError(
            f"{directory} cannot be made ({error.strerror}); pass another --out"
        ) from error
    # Check the model folder too. If a model was trained there, the folder has files that the
    # index's copy of a model does not have.
    copied = (f"{MODEL_FOLDER}/{name}" for name in (ONNX_FILE, INT8_FILE, CARD_FILE))
    known = (LOCK_FILE, MODEL_FOLDER, *copied)
    has_others = any(
        str(entry.relative_to(directory)) not in known and not WRITTEN_FILE.fullmatch(entry.name)
        for entry in (*directory.iterdir(), *directory.glob(f"{MODEL_FOLDER}/*"))
    )
    if has_others and not is_index(directory):
        raise IndexDirectoryError(
            f"{directory} holds other files and is not an index; "
            "pass an --out that is empty or does not exist yet"
        )


def take_lock(directory: Path) -> BinaryIO:
    """Lock an index until the returned file is closed.

    Raises IndexDirectoryError if another process holds the lock or the directory is read-only.
    """
    try:
        lock = (directory / LOCK_FILE).open("wb")
    except OSError as error:
        raise IndexDirectoryError(
            f"{directory} cannot be changed ({error.strerror}); make it writable, or work on a copy"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise IndexDirectoryError(
            f"{directory} is being changed by another process; wait until that process has finished"
        ) from error
    return lock


def create(
    directory: Path, model_directory: Path, card: ModelCard, precision: Precision = "float32"
) -> None:
    """Write an index without items, for features that are computed in `precision`.

    The manifest is written last, because it makes the directory an index.
    """
    model_files = copy_model(model_directory, card, directory, precision)
    files = open_files(directory, new_files(0))
    extents = {kind: file.sync() for kind, file in files.items()}
    for file in files.values():
        file.close()
    created_at = now()
    manifest = Manifest(
        model_id=card.id,
        feature_precision=precision,
        files=extents,
        model_files=model_files,
        created_at=created_at,
        updated_at=created_at,
    )
    write_manifest(manifest, directory)


def copy_model(
    model_directory: Path, card: ModelCard, directory: Path, precision: Precision = "float32"
) -> dict[str, str]:
    """Copy a model into an index, and return the SHA-256 of each file by its name.

    The files are model.onnx, model.json and, if the model has it, model.int8.onnx. Raises
    ModelError if a file does not match its checksum in the card, or if `precision`, the precision
    of the features, is int8 and model.int8.onnx is missing.
    """
    (directory / MODEL_FOLDER).mkdir(exist_ok=True)
    files = [check_file(model_directory, ONNX_FILE, card.onnx_sha256)]
    if card.int8 and (precision == "int8" or (model_directory / INT8_FILE).exists()):
        files.append(check_file(model_directory, INT8_FILE, card.int8.sha256))
    model_files = {}
    for file in (*files, model_directory / CARD_FILE):
        copy = directory / MODEL_FOLDER / file.name
        # shutil.copyfile would name the source in an error, even if the target's disk is full.
        with (
            replacing(copy) as temporary,
            file.open("rb") as source,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        model_files[file.name] = file_sha256(copy)
    return model_files


def remove_leftovers(directory: Path, *commits: Manifest) -> None:
    """Delete the index's files that neither these commits nor the manifest's copy contain.

    Such files were left behind by an interrupted writer, or a later commit replaced them.
    """
    copy = read_copy(directory)
    manifests = [*commits, copy] if copy else commits
    kept = {extent.file for manifest in manifests for extent in manifest.files.values()}
    kept |= {artefact.file for manifest in manifests for artefact in manifest.artefacts.values()}
    for file in directory.iterdir():
        if file.name not in kept and WRITTEN_FILE.fullmatch(file.name):
            file.unlink(missing_ok=True)


def now() -> str:
    """The current time as ISO 8601 in UTC, without fractions of a second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
