"""The nearest items to a feature: by an exact scan, or by candidates from a FAISS structure; distances are always the true ones."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import faiss
import numpy as np

from indexer.array_types import Floats, Rows
from indexer.metrics import DEFAULT_RERANK, METRICS, Metric, QueryMetric
from indexer.search.code_search import CodeSearch
from indexer.search.exact import Found, nearest, refined, scanned
from indexer.search.faiss_structure import GpuFlat, Structure, load_structure, resolve_search_device
from indexer.storage.index import Index, Item
from training.devices import Device
from training.errors import UserError
from training.network.model import NUM_FEATURES
from training.progress import console

__all__ = ["METRICS", "Match", "Metric", "Searcher", "approximate"]

MIN_MORE_CANDIDATES, MAX_MORE_CANDIDATES = 32, 300
"""How many candidates beyond k are measured exactly: three for each match wanted, within these limits."""
NUM_CORES: int = faiss.omp_get_max_threads()
"""FAISS's threads, which OMP_NUM_THREADS may limit."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Match:
    """An item and its distance from the query: between features, or the number of bits that differ where codes alone decide."""

    item: Item
    distance: float


class Searcher:
    """Searches one commit of an index. Safe to use from several threads; what is on a GPU is owned by a single one of its own."""

    def __init__(self, index: Index, *, device: Device = "cpu"):
        """Raises IndexDirectoryError where a structure of the index cannot be read, UserError where there is no GPU but must be."""
        self.index, self.device = index, resolve_search_device(device)
        self._structures: dict[Metric, Structure | GpuFlat | None] = {
            metric: load_structure(index, metric) for metric in METRICS
        }
        self._owner: ThreadPoolExecutor | None = None
        if self.device == "gpu" and len(index.rows):
            self._owner = ThreadPoolExecutor(1, thread_name_prefix="gpu")
            self._owned(lambda: self._move_to_gpu(is_required=device == "gpu"))

    @cached_property
    def codes(self) -> CodeSearch:
        """What searches by Hamming distance; raises IndexDirectoryError where the index has no codes, or damaged ones."""
        return CodeSearch(self.index, NUM_CORES)

    def search(
        self,
        features: Floats,
        k: int,
        *,
        metric: QueryMetric = "euclidean",
        label: str | None = None,
        exact: bool = False,
        rerank: int = DEFAULT_RERANK,
        flips: int | None = None,
    ) -> list[list[Match]]:
        """The `k` nearest items to each feature (B, 4096), nearest first; fewer where the index or the label has fewer.

        Euclidean distance is the paper's; cosine distance is 1 - cosine. With `label` the nearest of that label, exactly. Else, unless
        `exact`, an index with a structure may miss some: the manifest has its recall at 10. By `hamming` the `rerank` nearest by code
        are ranked by Euclidean distance, or with 0 the codes alone decide, exactly; with `flips` and no label, only items are looked at
        whose address differs in so many bits. Raises IndexDirectoryError where there are no codes.
        """
        queries = np.ascontiguousarray(features, np.float32)
        assert queries.shape == (len(queries), NUM_FEATURES)
        rows = self.index.rows if label is None else self.index.rows_of_label(label)
        k = min(k, len(rows))
        if not k or not len(queries):
            return [[] for _ in queries]
        if metric == "hamming":
            return self._matches(
                self.codes.search(
                    queries, k, rerank=rerank, rows=None if label is None else rows, flips=flips
                )
            )
        structure = None if exact or label is not None else self._structures[metric]
        with _share_of_cores():
            if structure is None or not num_candidates(k) <= min(
                len(rows), structure.max_candidates
            ):
                return self._matches(nearest(self.index, rows, queries, k, metric))
            count = num_candidates(k)
            found = approximate(
                self.index,
                structure,
                queries,
                k,
                self._owned(lambda: structure.candidates(queries, count)),
            )
            for place, (distances, _) in enumerate(found):
                if len(distances) < k:
                    found[place] = nearest(self.index, rows, queries[place : place + 1], k, metric)[
                        0
                    ]
        return self._matches(found)

    def _matches(self, found: list[Found]) -> list[list[Match]]:
        ids = self.index.records["id"]
        items = self.index.items_of(
            [int(id) for id in ids[np.unique(np.concatenate([rows for _, rows in found]))]]
        )
        return [
            [
                Match(items[int(ids[row])], float(distance))
                for distance, row in zip(*pair, strict=True)
            ]
            for pair in found
        ]

    def _owned(self, work: Callable[[], _Result]) -> _Result:
        """Does the work, in the thread that owns the GPU where there is one."""
        return self._owner.submit(work).result() if self._owner else work()

    def _move_to_gpu(self, *, is_required: bool) -> None:
        """What does not fit on the GPU stays on the CPU, unless it must not."""
        resources = self._resources = (
            faiss.StandardGpuResources()
        )  # has to live as long as what is on the GPU
        for metric, structure in self._structures.items():
            try:
                if isinstance(structure, Structure):
                    structure.to_gpu(resources)
                else:
                    self._structures[metric] = GpuFlat(self.index, metric, resources)
            except RuntimeError as error:
                problem = f"the GPU cannot hold what {metric} search of {self.index.directory} takes ({str(error)[:100]})"
                if is_required:
                    raise UserError(f"{problem}; pass --device cpu") from error
                console.print(f"{problem}, so the CPU does it")


def num_candidates(k: int) -> int:
    """How many candidates are measured to find k."""
    return k + min(max(3 * k, MIN_MORE_CANDIDATES), MAX_MORE_CANDIDATES)


def approximate(
    index: Index, structure: Structure | GpuFlat, queries: Floats, k: int, ids: Rows
) -> list[Found]:
    """The `k` nearest to each query among candidates (B, n), which are ids, and the items added since the structure was made."""
    places = np.minimum(np.searchsorted(index.ids, ids), len(index.ids) - 1)
    rows = np.where(index.ids[places] == ids, index.rows[places], -1)
    tail = index.rows[np.searchsorted(index.ids, structure.last_id, "right") :]
    if len(tail):
        rows = np.concatenate([rows, scanned(index, tail, queries, k, structure.metric)], axis=1)
    return refined(index, queries, rows, k, structure.metric)


_running = 0
_lock = threading.Lock()


@contextmanager
def _share_of_cores() -> Iterator[None]:
    """Searches that run at the same time share the cores: FAISS would give all of them to each."""
    global _running
    with _lock:
        _running += 1
        faiss.omp_set_num_threads(max(1, NUM_CORES // _running))  # for this thread only
    try:
        yield
    finally:
        with _lock:
            _running -= 1
