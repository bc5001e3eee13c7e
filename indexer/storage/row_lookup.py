"""Look up rows by the hash of a path or of a file's content."""

import numpy as np
import numpy.typing as npt

from indexer.array_types import Rows


class RowLookup:
    """A table of rows (n,) and their hashes (n,).

    Different texts can have the same hash, so callers must also compare the texts.
    """

    def __init__(self, hashes: npt.NDArray[np.uint64], rows: Rows):
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._rows = hashes[order], rows[order]

    def rows_of(self, value: int) -> Rows:
        """The rows with this hash, in the order of the constructor's `rows`."""
        start = int(np.searchsorted(self._hashes, np.uint64(value), "left"))
        end = int(np.searchsorted(self._hashes, np.uint64(value), "right"))
        return self._rows[start:end]
