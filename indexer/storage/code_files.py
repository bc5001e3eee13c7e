"""Write the file of binary codes, which contains one code per row.

A file belongs to one encoder and one generation of the rows. A new encoder or a new generation
needs a new file. The name of the file contains the number of the first commit that uses the file.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np

from indexer.array_types import Codes, Floats, Rows
from indexer.storage.codes import Encoder, load_encoder
from indexer.storage.growing_files import GrowingFile, measure_extent
from indexer.storage.index import Index
from indexer.storage.manifest import Extent, IndexDirectoryError, Manifest
from indexer.storage.records import CODES, file_name
from training.progress import Bar

ENCODING_BLOCK_ROWS = 256
"""Number of features that are encoded together. One matrix product is faster than one product per
row."""


class CodeFile(GrowingFile):
    """A growing file of codes. It encodes features in blocks."""

    def __init__(self, directory: Path, extent: Extent, encoder: Encoder):
        super().__init__(directory, extent)
        self._encoder = encoder
        self._waiting: list[Floats] = []

    def encode(self, features: Floats) -> None:
        """Append the codes of features (B, 4096).

        The codes are written no later than the next `sync`.
        """
        self._waiting.extend(np.array(features, np.float32))  # the caller may reuse its array
        if len(self._waiting) >= ENCODING_BLOCK_ROWS:
            self._write_waiting()

    def sync(self) -> Extent:
        self._write_waiting()
        return super().sync()

    def _write_waiting(self) -> None:
        if self._waiting:
            self.append(self._encoder.encode(np.stack(self._waiting)).tobytes())
            self._waiting.clear()


def continue_codes(index: Index, manifest: Manifest) -> CodeFile | None:
    """Open the file of an index's codes to append the codes of new rows.

    Returns None if the index has no codes. `index` is the commit that the writer opened, and
    `manifest` is its latest commit. Raises IndexDirectoryError if codes of earlier rows are missing
    or the encoder is damaged.
    """
    if index.codes is None:
        return None
    encoder = load_encoder(index.directory, manifest)
    assert encoder
    return CodeFile(index.directory, manifest.files[CODES], encoder)


def encode_rows(index: Index, rows: Rows, encoder: Encoder, *, commit: int) -> CodeFile:
    """Write a new file with the codes of these rows, in the same order, and keep it open.

    If writing fails, the OSError names the file.
    """
    codes = CodeFile(index.directory, _new_file(commit), encoder)
    try:
        with Bar("Encoding", len(rows)) as bar:
            for start in range(0, len(rows), ENCODING_BLOCK_ROWS):
                block = rows[start : start + ENCODING_BLOCK_ROWS]
                codes.encode(index.features[block])
                bar.advance(len(block))
        codes.sync()
    except BaseException:
        codes.close()
        raise
    return codes


def copy_codes(index: Index, manifest: Manifest, rows: Rows, *, commit: int) -> Extent:
    """Write a new file with the codes of these rows, for the next generation.

    If the present codes are intact, they are copied, and the encoder is not needed. Otherwise the
    encoder makes the codes again from the features. Raises IndexDirectoryError if the encoder is
    needed but damaged.
    """
    if (codes := _intact_codes(index, manifest.files[CODES])) is not None:
        file = GrowingFile(index.directory, _new_file(commit))
    else:
        encoder = load_encoder(index.directory, manifest)
        assert encoder
        file = encode_rows(index, rows, encoder, commit=commit)
    try:
        if codes is not None:
            file.append(codes[rows].tobytes())
        return file.sync()
    finally:
        file.close()


def _intact_codes(index: Index, extent: Extent) -> Codes | None:
    """The codes of an index if they are in this extent and match its checksum; otherwise None."""
    with suppress(IndexDirectoryError, FileNotFoundError):
        if index.manifest.files.get(CODES) == extent == measure_extent(index.directory, extent):
            return index.codes
    return None


def _new_file(commit: int) -> Extent:
    return Extent(file_name(CODES, commit))
