"""What an artefact's file holds, once its checksum fits."""

import io
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from indexer.array_types import Floats
from indexer.storage.manifest import Artefact, IndexDirectoryError


def read_artefact(directory: Path, artefact: Artefact, remedy: str) -> bytes:
    """The bytes that were written; raises IndexDirectoryError, with the remedy, for others."""
    file = directory / artefact.file
    try:
        content = file.read_bytes()
    except OSError as error:
        raise IndexDirectoryError(f"{file} cannot be read ({error}); {remedy}") from error
    if sha256(content).hexdigest() != artefact.sha256:
        raise IndexDirectoryError(f"{file} is damaged (its checksum does not fit); {remedy}")
    return content


def read_arrays(
    directory: Path, artefact: Artefact, shapes: Mapping[str, tuple[int, ...]], remedy: str
) -> list[Floats]:
    """NumPy's arrays of these names and shapes, in this order; raises IndexDirectoryError, with the remedy, for a damaged file."""
    file = directory / artefact.file
    try:
        with np.load(
            io.BytesIO(read_artefact(directory, artefact, remedy)), allow_pickle=False
        ) as content:
            arrays = {name: content[name] for name in shapes}
    except (ValueError, KeyError, BadZipFile) as error:
        raise IndexDirectoryError(f"{file} cannot be read ({error}); {remedy}") from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise IndexDirectoryError(
                f"{file} should have {name} {shape} but has {arrays[name].shape}; {remedy}"
            )
    return list(arrays.values())
