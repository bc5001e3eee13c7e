"""A FAISS structure over an index's features. It finds most of the nearest items in a short time.

A structure refers to items by their ids, because a compaction changes their rows. It contains the
items that the index had when the structure was made or extended. The caller scans the items that
were added later, and leaves out the items that were removed later.
"""

from typing import Any

import faiss
import numpy as np

from indexer.array_types import Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.search.kinds import BYTES_PER_NUMBER
from indexer.storage.index import Index
from indexer.storage.manifest import Artefact, IndexDirectoryError
from training.network.model import NUM_FEATURES

_faiss: Any = faiss  # its type stubs lack the classes that it creates at run time
# Memory-map the file without a copy. Older versions of FAISS can do this for inverted lists only.
READ_FLAGS = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
MAX_GPU_CANDIDATES = 2048
"""Maximum number of candidates, and of probed lists, that FAISS allows on a GPU."""
MAX_GRAPH_BREADTH = 1024
UPLOAD_BLOCK_ROWS = 2048
"""Number of features that are copied to the GPU at a time. They take 32 MB."""


class Structure:
    """A FAISS index that returns item ids, with the facts about it from the manifest.

    On the CPU, a structure is safe to use from several threads. On a GPU, only one thread may use
    it.
    """

    def __init__(
        self, faiss_index: Any, kind: str, metric: Metric, breadth: int, last_id: int, ids: Rows
    ):
        """`breadth` is the number of inverted lists that a search probes.

        For a graph, it is the number of nodes that are kept during a search. `last_id` is the
        highest item id in the structure. `ids` are the ids of the current items, in ascending
        order.
        """
        self.kind, self.metric, self.breadth, self.last_id = kind, metric, breadth, last_id
        self.max_candidates = np.iinfo(np.int32).max
        is_graph = kind.startswith("hnsw")
        self.max_breadth = MAX_GRAPH_BREADTH if is_graph else int(faiss_index.nlist)
        self._faiss_index = faiss_index
        num_covered = int(np.searchsorted(ids, last_id, "right"))
        self._selector = None
        if num_covered < faiss_index.ntotal:  # some items were removed
            is_item = np.zeros((last_id // 8 + 1) * 8, bool)
            is_item[ids[:num_covered]] = True
            # The bits are kept as an attribute, because the selector holds only a pointer to them.
            self._bits = np.packbits(is_item, bitorder="little")
            self._selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))

    def candidates(self, queries: Floats, count: int) -> Rows:
        """The ids of `count` items near each query (B, 4096), nearest first, (B, count).

        If the structure finds fewer items for a query, the last ids of this query are -1.
        """
        selected = {} if self._selector is None else {"sel": self._selector}
        if self.kind.startswith("hnsw"):
            breadth = max(self.breadth, count)
            parameters = _faiss.SearchParametersHNSW(efSearch=breadth, **selected)
        else:
            parameters = _faiss.SearchParametersIVF(nprobe=self.breadth, **selected)
        vectors = DISTANCES[self.metric].as_euclidean(queries)
        ids: Rows = self._faiss_index.search(vectors, count, params=parameters)[1]
        return ids

    def to_gpu(self, resources: Any) -> None:
        """Move inverted lists to the GPU. A graph stays on the CPU.

        Only one thread may use the lists on the GPU. Raises RuntimeError if they do not fit.
        """
        if self.kind.startswith("ivf"):
            self._faiss_index = faiss.index_cpu_to_gpu(resources, 0, self._faiss_index)
            self._selector = None  # not available on a GPU: the caller leaves out removed items
            self.max_candidates = MAX_GPU_CANDIDATES
            self.breadth = min(self.breadth, MAX_GPU_CANDIDATES)


class GpuFlat:
    """All features in the memory of a GPU, for an exact scan. Only one thread may use it."""

    def __init__(self, index: Index, metric: Metric, resources: Any):
        """Raises RuntimeError if the features do not fit."""
        self.metric, self.last_id = metric, index.manifest.next_id
        self.max_candidates = MAX_GPU_CANDIDATES
        self._ids = index.ids
        self._faiss_index = faiss.GpuIndexFlatL2(resources, NUM_FEATURES)
        for start in range(0, len(index.rows), UPLOAD_BLOCK_ROWS):
            features = index.features[index.rows[start : start + UPLOAD_BLOCK_ROWS]]
            self._faiss_index.add(DISTANCES[metric].as_euclidean(features))

    def candidates(self, queries: Floats, count: int) -> Rows:
        """The ids of the items nearest to each query (B, 4096), nearest first, (B, count)."""
        vectors = DISTANCES[self.metric].as_euclidean(queries)
        ids: Rows = self._ids[self._faiss_index.search(vectors, count)[1]]
        return ids


def load_structure(index: Index, metric: Metric) -> Structure | None:
    """Memory-map the index's structure for this metric; None if the index has none.

    Raises IndexDirectoryError if it cannot be read.
    """
    artefact = index.manifest.artefacts.get(metric)
    if artefact is None:
        return None
    faiss_index = read_faiss(index, artefact, READ_FLAGS)
    kind, last_id = artefact.facts["kind"], artefact.facts["last_id"]
    breadth = artefact.facts[breadth_fact(kind)]
    return Structure(faiss_index, kind, metric, breadth, last_id, index.ids)


def read_faiss(index: Index, artefact: Artefact, flags: int = 0) -> Any:
    """Read the FAISS index of an artefact; raises IndexDirectoryError."""
    file = index.directory / artefact.file
    remedy = (
        "to see what is lost and how to make it again, "
        f"run: lookalike index verify {index.directory}"
    )
    if not file.is_file():
        raise IndexDirectoryError(f"{file} is missing; {remedy}")
    if (size := file.stat().st_size) != artefact.num_bytes:
        raise IndexDirectoryError(
            f"{file} should hold {artefact.num_bytes:,} bytes but has {size:,}; {remedy}"
        )
    try:
        faiss_index = faiss.read_index(str(file), flags)
    except Exception as error:  # FAISS raises many types of exception for a damaged file
        raise IndexDirectoryError(f"{file} is damaged: FAISS cannot read it; {remedy}") from error
    shape = faiss_index.d, faiss_index.ntotal
    expected_shape = NUM_FEATURES, artefact.facts["num_covered"]
    if shape != expected_shape or artefact.facts["kind"] not in BYTES_PER_NUMBER:
        raise IndexDirectoryError(
            f"{file} is damaged: it is not the structure that the manifest describes; {remedy}"
        )
    return faiss_index


def breadth_fact(kind: str) -> str:
    """The name of a kind's breadth in the manifest. FAISS uses the same name."""
    return "ef_search" if kind.startswith("hnsw") else "nprobe"
