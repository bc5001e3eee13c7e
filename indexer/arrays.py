"""The arrays of an artefact that NumPy wrote."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from indexer.embedder import Floats
from indexer.manifest import Artefact, IndexDirectoryError
from training.model import file_sha256


def read_arrays(directory: Path, artefact: Artefact, shapes: Mapping[str, tuple[int, ...]], remedy: str) -> list[Floats]:
    """The arrays of these names and shapes, in this order; raises IndexDirectoryError, with the remedy, for a damaged file."""
    file = directory / artefact.file
    try:
        if file_sha256(file) != artefact.sha256:
            raise IndexDirectoryError(f"{file} is damaged (its checksum does not fit); {remedy}")
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in shapes}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise IndexDirectoryError(f"{file} cannot be read ({error}); {remedy}") from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise IndexDirectoryError(f"{file} should have {name} {shape} but has {arrays[name].shape}; {remedy}")
    return list(arrays.values())
