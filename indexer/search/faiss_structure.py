"""A FAISS structure over an index's features: it gives candidates quickly, most of the nearest among them.

A structure knows items by their ids, which outlive compactions. It covers the items there were when it was made: later ones are the
caller's to scan, removed ones its to leave out.
"""

from typing import Any

import faiss
import numpy as np

from indexer.array_types import Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.search.kinds import BYTES_A_NUMBER
from indexer.storage.index import Index
from indexer.storage.manifest import Artefact, IndexDirectoryError
from training.devices import Device
from training.errors import UserError
from training.network.model import NUM_FEATURES

_faiss: Any = faiss  # its stubs lack what it makes at run time
# Zero-copy memory maps, which older FAISSes have for inverted lists only.
READ_FLAGS = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
MAX_GPU_CANDIDATES = 2048
"""FAISS's own limit, of candidates and of lists probed."""
MAX_GRAPH_BREADTH = 1024
BLOCK_ROWS = 2048


class Structure:
    """A FAISS index by item id, and what the manifest says of it. Safe to use from several threads, but on a GPU."""

    def __init__(
        self, searched: Any, kind: str, metric: Metric, breadth: int, last_id: int, ids: Rows
    ):
        """`breadth`: how many lists are probed, or how far the graph is searched; `ids`: the items there are now, ascending."""
        self.kind, self.metric, self.breadth, self.last_id = kind, metric, breadth, last_id
        self.max_candidates = np.iinfo(np.int32).max
        self.max_breadth = MAX_GRAPH_BREADTH if kind.startswith("hnsw") else int(searched.nlist)
        self._searched = searched
        num_covered = int(np.searchsorted(ids, last_id, "right"))
        self._selector = None
        if num_covered < searched.ntotal:
            is_in = np.zeros((last_id // 8 + 1) * 8, bool)
            is_in[ids[:num_covered]] = True
            self._bits = np.packbits(is_in, bitorder="little")  # the selector only points to them
            self._selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))

    def candidates(self, queries: Floats, count: int) -> Rows:
        """The ids of `count` items near each query (B, 4096), nearest first, (B, count); -1 where there are fewer."""
        selected = {} if self._selector is None else {"sel": self._selector}
        if self.kind.startswith("hnsw"):
            wanted = _faiss.SearchParametersHNSW(efSearch=max(self.breadth, count), **selected)
        else:
            wanted = _faiss.SearchParametersIVF(nprobe=self.breadth, **selected)
        ids: Rows = self._searched.search(
            DISTANCES[self.metric].as_euclidean(queries), count, params=wanted
        )[1]
        return ids

    def to_gpu(self, resources: Any) -> None:
        """Moves it to the GPU, if it is of a kind that can; a single thread must own it from now on. Raises RuntimeError."""
        if self.kind.startswith("ivf"):
            self._searched = faiss.index_cpu_to_gpu(resources, 0, self._searched)
            self._selector = None  # not on a GPU: the caller drops what has been removed
            self.max_candidates, self.breadth = (
                MAX_GPU_CANDIDATES,
                min(self.breadth, MAX_GPU_CANDIDATES),
            )


class GpuFlat:
    """All the features in a GPU's memory, compared one and all; a single thread must own it."""

    def __init__(self, index: Index, metric: Metric, resources: Any):
        """Raises RuntimeError where they do not fit."""
        self.metric, self.last_id, self.max_candidates = (
            metric,
            index.manifest.next_id,
            MAX_GPU_CANDIDATES,
        )
        self._ids = index.ids
        self._searched = faiss.GpuIndexFlatL2(resources, NUM_FEATURES)
        for start in range(0, len(index.rows), BLOCK_ROWS):
            self._searched.add(
                DISTANCES[metric].as_euclidean(
                    index.features[index.rows[start : start + BLOCK_ROWS]]
                )
            )

    def candidates(self, queries: Floats, count: int) -> Rows:
        ids: Rows = self._ids[
            self._searched.search(DISTANCES[self.metric].as_euclidean(queries), count)[1]
        ]
        return ids


def load_structure(index: Index, metric: Metric) -> Structure | None:
    """The structure that the index has for this distance, memory-mapped; raises IndexDirectoryError where it cannot be read."""
    artefact = index.manifest.artefacts.get(metric)
    if artefact is None:
        return None
    facts = artefact.facts
    searched = read_faiss(index, artefact, READ_FLAGS)
    return Structure(
        searched,
        facts["kind"],
        metric,
        facts[breadth_fact(facts["kind"])],
        facts["last_id"],
        index.ids,
    )


def read_faiss(index: Index, artefact: Artefact, flags: int = 0) -> Any:
    """The FAISS index of an artefact; raises IndexDirectoryError."""
    file = index.directory / artefact.file
    remedy = f"run: lookalike index verify {index.directory}, which says what is lost and how to make it again"
    if not file.is_file():
        raise IndexDirectoryError(f"{file} is missing; {remedy}")
    if (size := file.stat().st_size) != artefact.num_bytes:
        raise IndexDirectoryError(
            f"{file} should hold {artefact.num_bytes:,} bytes but has {size:,}; {remedy}"
        )
    try:
        searched = faiss.read_index(str(file), flags)
    except Exception as error:  # FAISS tells of damage by whatever goes wrong first
        raise IndexDirectoryError(f"{file} is damaged, FAISS cannot read it; {remedy}") from error
    if (searched.d, searched.ntotal) != (
        NUM_FEATURES,
        artefact.facts["num_covered"],
    ) or artefact.facts["kind"] not in BYTES_A_NUMBER:
        raise IndexDirectoryError(f"{file} is damaged: it is not what the manifest says; {remedy}")
    return searched


def breadth_fact(kind: str) -> str:
    """What the manifest calls the breadth of a kind's search: the lists probed, or the nodes kept in mind on the way through the graph."""
    return "ef_search" if kind.startswith("hnsw") else "nprobe"


def resolve_search_device(device: Device) -> Device:
    """`cpu` or `gpu`; raises UserError where a GPU is asked for and FAISS has none."""
    if device == "cpu" or (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
        return "cpu" if device == "cpu" else "gpu"
    if device == "gpu":
        raise UserError(
            "a GPU was asked for but FAISS finds none here; pass --device cpu, or install faiss-gpu beside an NVIDIA GPU"
        )
    return "cpu"
