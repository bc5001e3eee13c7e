"""Find the items nearest to a feature, with an exact scan, a FAISS structure or codes."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from indexer.array_types import Floats, Rows
from indexer.metrics import DEFAULT_RERANK, METRICS, Metric, QueryMetric
from indexer.search.code_search import CodeSearch
from indexer.search.exact import Neighbours, find_nearest, rank_candidates, scan_features
from indexer.search.faiss_structure import GpuFlat, Structure, load_structure
from indexer.search.search_device import resolve_search_device
from indexer.storage.index import Index, Item, Labels
from training.devices import Device
from training.errors import UserError
from training.network.model import NUM_FEATURES
from training.parallel import num_cores
from training.progress import console

MIN_EXTRA_CANDIDATES, MAX_EXTRA_CANDIDATES = 32, 300
"""Limits for the number of additional candidates. In order to find k items, a search computes the
exact distances of more than k candidates. The number of additional candidates is 3 k, limited to
this range."""
NUM_TRIED = 256
"""Number of rows that `Searcher.try_out` scans. They are the newest ones."""
NUM_CORES = min(int(faiss.omp_get_max_threads()), num_cores())
"""Number of threads that FAISS uses. The environment variable OMP_NUM_THREADS may limit it."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Match:
    """An indexed item and its distance from the query.

    The distance is between features. In a search by codes without reranking, it is the number of
    bits that differ.
    """

    item: Item
    distance: float

    @property
    def path(self) -> str:
        """The item's path."""
        return self.item.path

    @property
    def label(self) -> str | None:
        """The item's label."""
        return self.item.label


class Searcher:
    """Searches one commit of an index.

    Safe to use from several threads. One separate thread makes all calls to structures on a GPU.
    """

    def __init__(self, index: Index, *, device: Device = "cpu"):
        """Raises IndexDirectoryError for a damaged structure.

        Raises UserError if `device` is `gpu` and no GPU can be used.
        """
        self.index, self.device = index, resolve_search_device(device)
        _limit_blas()
        self._structures: dict[Metric, Structure | GpuFlat | None] = {
            metric: load_structure(index, metric) for metric in METRICS
        }
        self._gpu_thread: ThreadPoolExecutor | None = None
        if self.device == "gpu" and len(index.rows):
            self._gpu_thread = ThreadPoolExecutor(1, thread_name_prefix="gpu")
            self._run(lambda: self._move_to_gpu(is_required=device == "gpu"))

    @cached_property
    def code_search(self) -> CodeSearch:
        """The search by codes; raises IndexDirectoryError if codes are missing or damaged."""
        return CodeSearch(self.index, NUM_CORES)

    def search(
        self,
        features: Floats,
        k: int,
        *,
        metric: QueryMetric = "euclidean",
        label: Labels | None = None,
        exact: bool = False,
        rerank: int = DEFAULT_RERANK,
        flips: int | None = None,
    ) -> list[list[Match]]:
        """Find the `k` items nearest to each feature (B, 4096), nearest first.

        If labels are given, only items with one of them are searched. If there are fewer than k
        items to search, the result contains all of them. Items at the same distance are ranked by
        row number. Distances between features are always exact.

        Euclidean and cosine: if a label is given, `exact` is true, or the index has no structure,
        the search scans the features. Otherwise it uses the structure, which may miss some items.
        The manifest contains the structure's recall at 10.

        Hamming: the `rerank` items nearest by code are ranked again by Euclidean distance. With
        `rerank=0`, items are ranked by their codes only, and the distance is the number of bits
        that differ. If `flips` is given and no label, the search covers only the items whose code
        has an address that differs from the query's address in at most `flips` bits (see
        code_buckets.py). Raises IndexDirectoryError if the index has no codes.
        """
        queries = np.ascontiguousarray(features, np.float32)
        assert queries.shape == (len(queries), NUM_FEATURES)
        rows = self.index.rows if label is None else self.index.rows_of_label(label)
        k = min(k, len(rows))
        if not k or not len(queries):
            return [[] for _ in queries]
        if metric == "hamming":
            filtered = None if label is None else rows
            search = self.code_search.search
            return self._to_matches(search(queries, k, rerank=rerank, rows=filtered, flips=flips))
        structure = None if exact or label is not None else self._structures[metric]
        with _share_of_cores():
            if structure is None or num_candidates(k) > min(len(rows), structure.max_candidates):
                neighbours = find_nearest(self.index, rows, queries, k, metric)
            else:
                neighbours = self._search_structure(structure, queries, k)
        return self._to_matches(neighbours)

    def try_out(self, feature: Floats, metric: QueryMetric) -> None:
        """Search with a feature (1, 4096), to notice what does not work; raises what goes wrong.

        If the search has no structure, only NUM_TRIED rows are scanned. So the time does not grow
        with the index.
        """
        if metric == "hamming" or self._structures[metric]:
            self.search(feature, 1, metric=metric)
        else:
            find_nearest(self.index, self.index.rows[-NUM_TRIED:], feature, 1, metric)

    def _search_structure(
        self, structure: Structure | GpuFlat, queries: Floats, k: int
    ) -> list[Neighbours]:
        """Search with the structure. If it gives a query fewer than `k` items, scan all items."""
        count = num_candidates(k)
        ids = self._run(lambda: structure.candidates(queries, count))
        neighbours = search_approximately(self.index, structure, queries, k, ids)
        for position, (distances, _) in enumerate(neighbours):
            if len(distances) < k:
                query = queries[position, None]
                (neighbours[position],) = find_nearest(
                    self.index, self.index.rows, query, k, structure.metric
                )
        return neighbours

    def _to_matches(self, neighbours: list[Neighbours]) -> list[list[Match]]:
        ids = self.index.records["id"]
        rows = np.unique(np.concatenate([rows for _, rows in neighbours]))
        items = self.index.items_of([int(id) for id in ids[rows]])
        return [
            [
                Match(items[int(ids[row])], float(distance))
                for distance, row in zip(distances, rows, strict=True)
            ]
            for distances, rows in neighbours
        ]

    def _run(self, work: Callable[[], _Result]) -> _Result:
        """Run in the thread that owns the GPU, or in this thread if no GPU is used."""
        return self._gpu_thread.submit(work).result() if self._gpu_thread else work()

    def _move_to_gpu(self, *, is_required: bool) -> None:
        """Move the structures to the GPU.

        If a structure does not fit, it is searched on the CPU. With `is_required`, raises UserError
        instead.
        """
        # The structures on the GPU use the resources, so the resources must not be freed first.
        resources = self._resources = faiss.StandardGpuResources()
        for metric, structure in self._structures.items():
            try:
                if isinstance(structure, Structure):
                    structure.to_gpu(resources)
                else:
                    self._structures[metric] = GpuFlat(self.index, metric, resources)
            except RuntimeError as error:
                problem = (
                    f"the GPU has too little memory for {metric} search of {self.index.directory} "
                    f"({str(error)[:100]})"
                )
                if is_required:
                    raise UserError(f"{problem}; pass --device cpu") from error
                console.print(f"{problem}, so the CPU is used")


def num_candidates(k: int) -> int:
    """The number of candidates to measure in order to find the k nearest."""
    return k + min(max(3 * k, MIN_EXTRA_CANDIDATES), MAX_EXTRA_CANDIDATES)


def search_approximately(
    index: Index, structure: Structure | GpuFlat, queries: Floats, k: int, ids: Rows
) -> list[Neighbours]:
    """Find the `k` nearest items of each query among its candidate `ids` (B, n) and the new items.

    New items are items that are not in the structure, because they were added after it was made.
    """
    positions = np.minimum(np.searchsorted(index.ids, ids), len(index.ids) - 1)
    rows = list(np.where(index.ids[positions] == ids, index.rows[positions], -1))
    tail = index.rows[np.searchsorted(index.ids, structure.last_id, "right") :]
    if len(tail):
        tail_rows = scan_features(index, tail, queries, k, structure.metric)
        rows = [np.concatenate(pair) for pair in zip(rows, tail_rows, strict=True)]
    return rank_candidates(index, queries, rows, k, structure.metric)


@lru_cache(maxsize=1)
def _limit_blas() -> None:
    """Keep NumPy's matrix products to the cores that this process may use, for the whole process.

    Otherwise they would use all cores of the machine, whatever the quota of a container.
    """
    if num_cores() < (os.cpu_count() or 1):
        threadpool_limits(limits=num_cores(), user_api="blas")


_num_running = 0
_lock = threading.Lock()


@contextmanager
def _share_of_cores() -> Iterator[None]:
    """Share the cores among the searches that run at the same time.

    Otherwise FAISS would use all cores for each search.
    """
    global _num_running
    with _lock:
        _num_running += 1
        # This sets the number of threads for searches of the current thread only.
        faiss.omp_set_num_threads(max(1, NUM_CORES // _num_running))
    try:
        yield
    finally:
        with _lock:
            _num_running -= 1
