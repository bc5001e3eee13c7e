"""Find the nearest items by code: count the bits that differ from the query's code.

Comparing codes reads no features. Optionally, the nearest items by code are ranked again by
Euclidean distance. This reads the features of these items only.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import faiss
import numpy as np

from indexer.array_types import Codes, Floats, Integers, Rows
from indexer.search.code_buckets import CodeBuckets
from indexer.search.exact import Neighbours, rank_candidates
from indexer.storage.codes import load_encoder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from training.network.model import NUM_FEATURES

MIN_CODES_PER_THREAD, MIN_ROWS_PER_THREAD = 50_000, 256
"""Minimum number of codes to compare per thread, and minimum number of rows to measure per thread.
A smaller number takes less than a tenth of a millisecond, so a thread of its own would not help."""
NUM_SPARE = 16
"""Number of candidates beyond k. They are needed because float32 may put almost equal distances in
the wrong order."""
_faiss: Any = faiss  # its type stubs lack the functions that work on arrays in place
_Result = TypeVar("_Result")


class CoreThreads:
    """A thread pool with one thread per core. Inside these threads FAISS runs single-threaded.

    Safe to use from several threads.
    """

    def __init__(self, num_threads: int):
        self._num_threads = num_threads
        self._threads = ThreadPoolExecutor(num_threads, "hamming", faiss.omp_set_num_threads, (1,))

    def map(
        self, work: Callable[[int, int], _Result], count: int, min_per_thread: int
    ) -> list[_Result]:
        """Split 0..count into one part per thread; return work(start, end) of each part, in order.

        If a part would be smaller than `min_per_thread`, fewer parts are made, but at least one.
        """
        num_parts = max(1, min(self._num_threads, count // min_per_thread))
        bounds = [count * part // num_parts for part in range(num_parts + 1)]
        return list(self._threads.map(work, bounds[:-1], bounds[1:]))


def scan(threads: CoreThreads, queries: Codes, codes: Codes, k: int) -> tuple[Integers, Integers]:
    """Find the `k` codes nearest to each query (B, bytes), among codes (n, bytes).

    Returns distances and positions, (B, min(k, n)) each, nearest first. Codes at the same distance
    are ranked by position.
    """
    k = min(k, len(codes))

    def count_bits(start: int, end: int) -> tuple[Integers, Integers]:
        # FAISS's variant "mc" sorts by counting, which is fast for a large k. It is called for one
        # query at a time: for every query of a call, it allocates k entries per possible distance.
        parts = [
            faiss.knn_hamming(query, codes[start:end], min(k, end - start), variant="mc")
            for query in queries[:, None]
        ]
        distances, positions = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return distances, positions + start

    parts = threads.map(count_bits, len(codes), MIN_CODES_PER_THREAD)
    distances, positions = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    # FAISS ranks codes at the same distance by position. The parts are in the order of their
    # positions too, so a stable sort keeps this ranking.
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    nearest_positions = np.take_along_axis(positions, order, axis=1)
    return np.take_along_axis(distances, order, axis=1), nearest_positions


class CodeSearch:
    """Searches the codes of one commit of an index. Safe to use from several threads."""

    def __init__(self, index: Index, num_threads: int):
        """Raises IndexDirectoryError if the index has no codes or if they are damaged."""
        codes, encoder = index.codes, load_encoder(index.directory, index.manifest)
        if codes is None or encoder is None:
            raise IndexDirectoryError(
                f"{index.directory} has no codes; "
                f"make them with: lookalike index encode {index.directory}"
            )
        self.encoder = encoder
        self._index = index
        self.item_codes: Codes = codes if len(codes) == len(index.rows) else codes[index.rows]
        """One code per item, in the order of the rows. Memory-mapped if no item was removed."""
        self._threads = CoreThreads(num_threads)

    @cached_property
    def buckets(self) -> CodeBuckets:
        """A second copy of the codes in memory, in buckets. The copy is made on first use."""
        return CodeBuckets(self.item_codes)

    def search(
        self,
        features: Floats,
        k: int,
        *,
        rerank: int,
        rows: Rows | None = None,
        flips: int | None = None,
    ) -> list[Neighbours]:
        """Find the `k` items nearest to each feature (B, 4096), or all items if there are fewer.

        If `rows` (n,) is given, in ascending order, only these rows are searched. If `rerank` is 0,
        the distance is the number of bits that differ, and items at the same distance are ranked by
        row number. Otherwise, the max(rerank, k) items that are nearest by code are ranked again by
        Euclidean distance.

        If `flips` is given and `rows` is not, the search covers only the buckets whose address
        differs from the query's address in at most `flips` bits. If these buckets contain fewer
        than k codes, all codes are scanned.
        """
        queries = self._encode(features)
        count = max(rerank, k)
        if flips is None or rows is not None:
            by_code = self._scan(queries, count, rows)
        else:
            by_code = self._look_up(queries, k, count, flips)
        if not rerank:
            return by_code
        return [
            self._rerank(feature, np.sort(rows_by_code), k)
            for feature, (_, rows_by_code) in zip(features, by_code, strict=True)
        ]

    def _encode(self, features: Floats) -> Codes:
        """The codes of features (B, 4096), computed by FAISS on one core.

        BLAS is not used, because its threads would keep the cores busy for a while after the
        product, and the scan needs the cores next.
        """
        encoder = self.encoder
        projections = np.empty((len(features), len(encoder.weights)), np.float32)
        for feature, projection in zip(features, projections, strict=True):
            arrays = (projection, feature, encoder.weights)
            pointers = [faiss.swig_ptr(array) for array in arrays]
            _faiss.fvec_inner_products_ny(*pointers, NUM_FEATURES, len(projection))
        return encoder.packed(projections)

    def _scan(self, queries: Codes, count: int, rows: Rows | None) -> list[Neighbours]:
        if rows is None:
            codes, rows = self.item_codes, self._index.rows
        else:
            codes = self.item_codes[np.searchsorted(self._index.rows, rows)]
        return _to_neighbours(*scan(self._threads, queries, codes, count), rows)

    def _look_up(self, queries: Codes, k: int, count: int, flips: int) -> list[Neighbours]:
        """Search the buckets within `flips`. If these contain fewer than `k` codes, scan all."""
        rows = self._index.rows
        neighbours = _to_neighbours(
            *self.buckets.search(queries, min(count, len(rows)), flips), rows
        )
        for position, (_, rows_in_buckets) in enumerate(neighbours):
            if len(rows_in_buckets) < min(k, len(rows)):
                (neighbours[position],) = self._scan(queries[position, None], count, None)
        return neighbours

    def _rerank(self, feature: Floats, rows: Rows, k: int) -> Neighbours:
        """Find the `k` of `rows` (n,) nearest to a feature (4096,) by Euclidean distance.

        The features of the rows are not copied. FAISS reads them from the memory-mapped file.
        """
        squared = np.empty(len(rows), np.float32)
        query, features = faiss.swig_ptr(feature), faiss.swig_ptr(self._index.features)

        def measure(start: int, end: int) -> None:
            out, ids = faiss.swig_ptr(squared[start:end]), faiss.swig_ptr(rows[start:end])
            _faiss.fvec_L2sqr_by_idx(out, query, features, ids, NUM_FEATURES, 1, end - start)

        self._threads.map(measure, len(rows), MIN_ROWS_PER_THREAD)
        num_kept = min(k + NUM_SPARE, len(rows))
        kept = rows[np.argpartition(squared, num_kept - 1)[:num_kept]]
        return rank_candidates(self._index, feature[None], kept[None], k, "euclidean")[0]


def _to_neighbours(distances: Integers, positions: Integers, rows: Rows) -> list[Neighbours]:
    """Convert distances and positions in `rows`, (B, k) each, to the neighbours of each query.

    Neighbours at the same distance are ranked by row number. A position of -1 is left out.
    """
    neighbours = []
    for some_distances, some_positions in zip(distances, positions, strict=True):
        is_item = some_positions >= 0
        kept_distances = some_distances[is_item].astype(np.float64)
        kept_positions = some_positions[is_item]
        order = np.lexsort((kept_positions, kept_distances))
        neighbours.append((kept_distances[order], rows[kept_positions[order]]))
    return neighbours
