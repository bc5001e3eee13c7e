"""The nearest items by code: the bits that differ are counted, for every item, without reading a feature.

Optionally the nearest by code are measured again by their features, reading those rows only: codes find, features rank.
"""

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np

from indexer.codes import Codes, load_encoder
from indexer.embedder import Floats
from indexer.exact import Found, refined
from indexer.index import Index, Rows
from indexer.manifest import IndexDirectoryError

MIN_SHARE = 50_000
"""Codes that are worth a thread: they are counted in less than a tenth of a millisecond."""


class CodeSearch:
    """Searches the codes of one commit of an index. Safe to use from several threads."""

    def __init__(self, index: Index, num_threads: int):
        """Raises IndexDirectoryError for an index without codes, or with damaged ones."""
        codes, encoder = index.codes, load_encoder(index.directory, index.manifest)
        if codes is None or encoder is None:
            raise IndexDirectoryError(f"{index.directory} has no codes; make them: lookalike index encode {index.directory}")
        self.encoder = encoder
        self._index = index
        self.of_items: Codes = codes if len(codes) == len(index.rows) else codes[index.rows]
        """Parallel to the index's rows; memory-mapped, unless removed ones had to be left out."""
        self._num_threads = num_threads
        self._threads = ThreadPoolExecutor(num_threads, "hamming", faiss.omp_set_num_threads, (1,))

    def search(self, features: Floats, k: int, *, rerank: int, rows: Rows | None = None) -> list[Found]:
        """The `k` nearest items to each feature (B, 4096), among all or `rows` (n,), ascending; fewer where there are fewer.

        With `rerank` the nearest of so many by code, or of k where that is more, by Euclidean distance; without (0), by the number of
        bits that differ, and ties by row.
        """
        queries = self.encoder.encode(features)
        if not rerank:
            return self._nearest(queries, k, rows)
        candidates = self._nearest(queries, max(rerank, k), rows)
        return refined(self._index, features, np.stack([found for _, found in candidates]), k, "euclidean")

    def _nearest(self, queries: Codes, k: int, rows: Rows | None) -> list[Found]:
        if rows is None:
            codes, rows = self.of_items, self._index.rows
        else:
            codes = self.of_items[np.searchsorted(self._index.rows, rows)]
        k = min(k, len(codes))
        num_parts = max(1, min(self._num_threads, len(codes) // MIN_SHARE))
        bounds = [len(codes) * part // num_parts for part in range(num_parts + 1)]

        def count(start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
            distances, places = faiss.knn_hamming(queries, codes[start:end], min(k, end - start))
            return distances, places + start

        parts = list(self._threads.map(count, bounds[:-1], bounds[1:]))
        distances, places = (np.concatenate(found, axis=1) for found in zip(*parts, strict=True))
        # FAISS gives ties by place, and each part's places come after those of the part before.
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        distances, places = np.take_along_axis(distances, order, axis=1), np.take_along_axis(places, order, axis=1)
        return [(some.astype(np.float64), rows[found]) for some, found in zip(distances, places, strict=True)]
