"""The nearest items by code: the bits that differ are counted, for every item, without reading a feature.

Optionally the nearest by code are measured again by their features, reading those rows only: codes find, features rank.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import faiss
import numpy as np

from indexer.array_types import Codes, Floats, Integers, Rows
from indexer.search.code_buckets import Addresses
from indexer.search.exact import NUM_SPARE, Found, refined
from indexer.storage.codes import load_encoder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from training.network.model import NUM_FEATURES

MIN_CODES, MIN_ROWS = 50_000, 256
"""Codes to count, and rows to measure, that are worth a thread: they take a tenth of a millisecond or more."""
_faiss: Any = faiss  # its stubs lack what works on arrays where they lie
_Result = TypeVar("_Result")


class Cores:
    """Threads with a core each, of which FAISS uses no other there. Safe to use from several threads."""

    def __init__(self, num_threads: int):
        self._num_threads = num_threads
        self._threads = ThreadPoolExecutor(num_threads, "hamming", faiss.omp_set_num_threads, (1,))

    def map(self, work: Callable[[int, int], _Result], count: int, least: int) -> list[_Result]:
        """What work(start, end) gives for parts of 0..count, at `least` so many each, or for all as one part; in order."""
        num_parts = max(1, min(self._num_threads, count // least))
        bounds = [count * part // num_parts for part in range(num_parts + 1)]
        return list(self._threads.map(work, bounds[:-1], bounds[1:]))


def scan(cores: Cores, queries: Codes, codes: Codes, k: int) -> tuple[Integers, Integers]:
    """Distances and places of the `k` codes (n, bytes) nearest to each query (B, bytes), (B, min(k, n)) each, ties by place."""
    k = min(k, len(codes))

    def count(start: int, end: int) -> tuple[Integers, Integers]:
        # By counting, which is quick for a large k. A query at a time: FAISS makes its lists, of k at every distance, for all at once.
        found = [
            faiss.knn_hamming(query, codes[start:end], min(k, end - start), variant="mc")
            for query in queries[:, None]
        ]
        distances, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return distances, places + start

    distances, places = (
        np.concatenate(found, axis=1)
        for found in zip(*cores.map(count, len(codes), MIN_CODES), strict=True)
    )
    # FAISS gives ties by place, and each part's places come after those of the part before.
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(places, order, axis=1)


class CodeSearch:
    """Searches the codes of one commit of an index. Safe to use from several threads."""

    def __init__(self, index: Index, num_threads: int):
        """Raises IndexDirectoryError for an index without codes, or with damaged ones."""
        codes, encoder = index.codes, load_encoder(index.directory, index.manifest)
        if codes is None or encoder is None:
            raise IndexDirectoryError(
                f"{index.directory} has no codes; make them: lookalike index encode {index.directory}"
            )
        self.encoder = encoder
        self._index = index
        self.of_items: Codes = codes if len(codes) == len(index.rows) else codes[index.rows]
        """Parallel to the index's rows; memory-mapped, unless removed ones had to be left out."""
        self._cores = Cores(num_threads)

    @cached_property
    def addresses(self) -> Addresses:
        """Made when first asked for: a second copy of the codes in memory, by bucket."""
        return Addresses(self.of_items)

    def search(
        self,
        features: Floats,
        k: int,
        *,
        rerank: int,
        rows: Rows | None = None,
        flips: int | None = None,
    ) -> list[Found]:
        """The `k` nearest items to each feature (B, 4096), among all or `rows` (n,), ascending; fewer where there are fewer.

        With `rerank` the nearest of so many by code, or of k where that is more, by Euclidean distance; without (0), by the number of
        bits that differ, and ties by row. With `flips` only items are looked at, of all, whose address differs in so many bits.
        """
        queries = self._encoded(features)
        count = max(rerank, k)
        found = (
            self._scanned(queries, count, rows)
            if flips is None or rows is not None
            else self._looked_up(queries, k, count, flips)
        )
        if not rerank:
            return found
        return [
            self._reranked(feature, np.sort(some), k)
            for feature, (_, some) in zip(features, found, strict=True)
        ]

    def _encoded(self, queries: Floats) -> Codes:
        """By FAISS, on one core: what threads BLAS would use go on spinning for a while, on the cores that the scan is about to take."""
        encoder = self.encoder
        projections = np.empty((len(queries), len(encoder.weights)), np.float32)
        for query, out in zip(queries, projections, strict=True):
            _faiss.fvec_inner_products_ny(
                *map(faiss.swig_ptr, (out, query, encoder.weights)), NUM_FEATURES, len(out)
            )
        return encoder.packed(projections)

    def _scanned(self, queries: Codes, count: int, rows: Rows | None) -> list[Found]:
        if rows is None:
            codes, rows = self.of_items, self._index.rows
        else:
            codes = self.of_items[np.searchsorted(self._index.rows, rows)]
        return _told(*scan(self._cores, queries, codes, count), rows)

    def _looked_up(self, queries: Codes, k: int, count: int, flips: int) -> list[Found]:
        """What the buckets within so many flips hold; where that is less than k, what a scan finds."""
        rows = self._index.rows
        found = _told(*self.addresses.nearest(queries, min(count, len(rows)), flips), rows)
        for place, (_, some) in enumerate(found):
            if len(some) < min(k, len(rows)):
                (found[place],) = self._scanned(queries[place : place + 1], count, None)
        return found

    def _reranked(self, feature: Floats, rows: Rows, k: int) -> Found:
        """The `k` nearest of rows (n,) to a feature (4096,), by Euclidean distance; rows are measured where they lie, none is copied."""
        squares = np.empty(len(rows), np.float32)
        asked, features = faiss.swig_ptr(feature), faiss.swig_ptr(self._index.features)

        def measure(start: int, end: int) -> None:
            some, out = rows[start:end], squares[start:end]
            _faiss.fvec_L2sqr_by_idx(
                faiss.swig_ptr(out),
                asked,
                features,
                faiss.swig_ptr(some),
                NUM_FEATURES,
                1,
                len(some),
            )

        self._cores.map(measure, len(rows), MIN_ROWS)
        num_kept = min(k + NUM_SPARE, len(rows))
        kept = rows[np.argpartition(squares, num_kept - 1)[:num_kept]]
        return refined(self._index, feature[None], kept[None], k, "euclidean")[0]


def _told(distances: Integers, places: Integers, rows: Rows) -> list[Found]:
    """Each query's distances with the rows at those places, ties by row; -1 is no place."""
    found = []
    for some, where in zip(distances, places, strict=True):
        some, where = some[where >= 0].astype(np.float64), where[where >= 0]
        order = np.lexsort((where, some))
        found.append((some[order], rows[where[order]]))
    return found
