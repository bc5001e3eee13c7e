"""Read artefacts. The content of a file is used only if it matches its checksum."""

import io
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from indexer.array_types import Floats
from indexer.storage.manifest import Artefact, IndexDirectoryError


def read_artefact(directory: Path, artefact: Artefact, remedy: str) -> bytes:
    """Read an artefact's file.

    Raises IndexDirectoryError with the remedy if the file is missing or does not match its
    checksum.
    """
    file = directory / artefact.file
    try:
        content = file.read_bytes()
    except OSError as error:
        raise IndexDirectoryError(f"{file} cannot be read ({error}); {remedy}") from error
    if sha256(content).hexdigest() != artefact.sha256:
        raise IndexDirectoryError(f"{file} is damaged (its checksum does not match); {remedy}")
    return content


def read_arrays(
    directory: Path, artefact: Artefact, shapes: Mapping[str, tuple[int, ...]], remedy: str
) -> list[Floats]:
    """Read the named arrays from a .npz artefact, in the order of `shapes`.

    `shapes` has the expected shape of each array, by name. Raises IndexDirectoryError with the
    remedy if the file is damaged, an array is missing, or a shape differs.
    """
    file = directory / artefact.file
    content = io.BytesIO(read_artefact(directory, artefact, remedy))
    try:
        with np.load(content, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in shapes}
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise IndexDirectoryError(f"{file} cannot be read ({error}); {remedy}") from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise IndexDirectoryError(
                f"{file} should have {name} {shape} but has {arrays[name].shape}; {remedy}"
            )
    return list(arrays.values())
