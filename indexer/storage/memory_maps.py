"""Memory-map the committed bytes of growing files."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes
from indexer.storage.codes import encode_command, facts_of
from indexer.storage.manifest import Extent, IndexDirectoryError, Manifest
from indexer.storage.records import CODES


def map_extent(directory: Path, extent: Extent, remedy: str | None) -> npt.NDArray[np.uint8]:
    """Map the committed bytes of a growing file, (num_bytes,).

    If bytes are missing, raises IndexDirectoryError with the remedy. If `remedy` is None, the bytes
    that are left are mapped.
    """
    file, size, content = directory / extent.file, None, np.empty(0, np.uint8)
    # The file is opened only once, because a compaction may delete it at any time.
    with suppress(FileNotFoundError), file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if num_mapped := min(size, extent.num_bytes):
            content = np.asarray(np.memmap(opened, np.uint8, "r", shape=(num_mapped,)))
    if remedy and (size is None or size < extent.num_bytes):
        problem = (
            "is missing"
            if size is None
            else f"should hold {extent.num_bytes:,} bytes but has {size:,}"
        )
        raise IndexDirectoryError(f"{file} {problem}; {remedy}")
    return content


def map_codes(directory: Path, manifest: Manifest) -> Codes | None:
    """Map the codes of all rows, (rows, bits / 8); returns None if the index has no encoder.

    Raises IndexDirectoryError if codes are missing.
    """
    facts = facts_of(manifest)
    if facts is None:
        return None
    extent, row_bytes = manifest.files[CODES], facts.num_bits // 8
    if extent.num_bytes != manifest.num_rows * row_bytes:
        raise IndexDirectoryError(
            f"{directory} should have one code per row "
            f"but has {extent.num_bytes // row_bytes:,} codes for {manifest.num_rows:,} rows; "
            f"to learn codes again, run: {encode_command(directory, facts)}"
        )
    remedy = f"to make the codes again, run: lookalike index verify {directory} --mend"
    return map_extent(directory, extent, remedy).reshape(-1, row_bytes)


def whole_rows(content: npt.NDArray[np.uint8], row_bytes: int) -> npt.NDArray[np.uint8]:
    """The bytes of all complete rows. If the last row was cut off, its bytes are left out."""
    return content[: len(content) // row_bytes * row_bytes]
