"""An index's directory: who may write to it, what in it is an index's own, and how an empty index begins."""

import fcntl
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from indexer.storage.growing_files import new_files, open_files
from indexer.storage.index import MODEL_FOLDER
from indexer.storage.manifest import IndexDirectoryError, Manifest, is_index, write_manifest
from indexer.storage.records import GROWING_FILES
from training.files import TEMPORARY_SUFFIX, file_sha256, replacing
from training.network.model import CARD_FILE, ONNX_FILE, check_file, read_card

LOCK_FILE = ".lock"
ARTEFACT_SUFFIXES = ("faiss", "json", "npz", "png")
_GROWING = "|".join(rf"{kind}-\d+\.{suffix}" for kind, suffix in GROWING_FILES.items())
OURS = re.compile(
    rf"{_GROWING}|[a-z]+-\d+\.(?:{'|'.join(ARTEFACT_SUFFIXES)})|\..*\{TEMPORARY_SUFFIX}"
)
"""The names of what a writer may leave behind."""


def make_directory(directory: Path) -> None:
    """Makes the directory of an index; raises IndexDirectoryError where it cannot be one, or holds something else."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexDirectoryError(
            f"{directory} cannot be made ({error.strerror}); pass another --out"
        ) from error
    ours = (LOCK_FILE, MODEL_FOLDER, f"{MODEL_FOLDER}/{ONNX_FILE}", f"{MODEL_FOLDER}/{CARD_FILE}")
    entries = [
        *directory.iterdir(),
        *directory.glob(f"{MODEL_FOLDER}/*"),
    ]  # a model that was trained there is no copy of ours
    others = [
        entry
        for entry in entries
        if str(entry.relative_to(directory)) not in ours and not OURS.fullmatch(entry.name)
    ]
    if others and not is_index(directory):
        raise IndexDirectoryError(
            f"{directory} holds other files and is no index; pass an --out that is empty or does not exist yet"
        )


def take_lock(directory: Path) -> BinaryIO:
    """The lock of an index, held until it is closed; raises IndexDirectoryError while another process has it."""
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
            f"{directory} is being changed by another process; wait until that one has finished"
        ) from error
    return lock


def create(directory: Path, model_directory: Path) -> None:
    """An index without items; the manifest comes last and makes it one."""
    model_files = copy_model(model_directory, directory)
    files = open_files(directory, new_files(0))
    extents = {kind: file.sync() for kind, file in files.items()}
    for growing in files.values():
        growing.close()
    model_id, made_at = read_card(model_directory).id, now()
    write_manifest(
        Manifest(
            model_id=model_id,
            files=extents,
            model_files=model_files,
            created_at=made_at,
            updated_at=made_at,
        ),
        directory,
    )


def copy_model(model_directory: Path, directory: Path) -> dict[str, str]:
    """Copies what an index keeps of its model; the SHA-256 of each file, by its name."""
    (directory / MODEL_FOLDER).mkdir(exist_ok=True)
    card, model_files = read_card(model_directory), {}
    for file in (
        check_file(model_directory, ONNX_FILE, card.onnx_sha256),
        model_directory / CARD_FILE,
    ):
        copy = directory / MODEL_FOLDER / file.name
        # Not copyfile, whose error names the source.
        with (
            replacing(copy) as temporary,
            file.open("rb") as source,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        model_files[file.name] = file_sha256(copy)
    return model_files


def now() -> str:
    """In ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
