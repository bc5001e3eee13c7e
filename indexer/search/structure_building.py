"""Build FAISS structures: train a structure on a sample of the features, and add the items."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from indexer.array_types import Floats, Rows
from indexer.metrics import DISTANCES, Metric
from indexer.search.kinds import (
    HNSW_LINKS,
    MAX_TRAINING_ROWS,
    MIN_POINTS_PER_LIST,
    SearchKind,
    num_lists,
)
from indexer.search.search_device import resolve_search_device
from indexer.storage.index import Index
from training.devices import Device
from training.network.model import NUM_FEATURES
from training.progress import Bar

HNSW_TRAINING_ROWS = 8192
ADD_BLOCK_ROWS = 2048
"""Number of features that are added at a time. They take 32 MB."""
SEED = 0


class StructureBuilder:
    """Trains FAISS indexes for one metric and adds items to them.

    The cells of inverted lists are computed on `device`.
    """

    def __init__(self, index: Index, metric: Metric, device: Device):
        self._index, self._as_euclidean = index, DISTANCES[metric].as_euclidean
        is_on_gpu = resolve_search_device(device) == "gpu"
        self._gpu_resources = faiss.StandardGpuResources() if is_on_gpu else None

    def train(self, kind: SearchKind) -> Any:
        """Make an empty FAISS index and train it on a seeded sample of the features.

        The training sets the cells of inverted lists and the ranges of 8-bit numbers.
        """
        family, _, precision = kind.partition("-")
        if family == "hnsw":
            faiss_index = _empty_graph(precision)
            self._train(faiss_index, HNSW_TRAINING_ROWS)
            return faiss_index
        count = num_lists(len(self._index.rows))
        faiss_index = _empty_lists(precision, count)
        clustering = self._on_device(faiss.IndexFlatL2(NUM_FEATURES))
        faiss_index.clustering_index = clustering
        self._train(faiss_index, max(count * MIN_POINTS_PER_LIST, HNSW_TRAINING_ROWS))
        faiss_index.clustering_index = None  # faiss_index does not own the clustering index
        return faiss_index

    def add(self, faiss_index: Any, rows: Rows, bar: Bar) -> None:
        """Add the items of `rows` (n,) with their ids."""
        add = self._adder(faiss_index)
        for start in range(0, len(rows), ADD_BLOCK_ROWS):
            block_rows = rows[start : start + ADD_BLOCK_ROWS]
            ids = self._index.records["id"][block_rows].astype(np.int64)
            add(self._as_euclidean(self._index.features[block_rows]), ids)
            bar.advance(len(block_rows))

    def _train(self, faiss_index: Any, num_rows: int) -> None:
        order = np.random.default_rng(SEED).permutation(len(self._index.rows))
        sample = np.sort(order[: min(num_rows, MAX_TRAINING_ROWS)])
        features = self._index.features[self._index.rows[sample]]
        faiss_index.train(self._as_euclidean(features))

    def _adder(self, faiss_index: Any) -> Callable[[Floats, Rows], None]:
        """A function that adds vectors (B, 4096) with their ids (B,)."""
        if not isinstance(faiss_index, faiss.IndexIVF):
            add_with_ids: Callable[[Floats, Rows], None] = faiss_index.add_with_ids
            return add_with_ids
        cells = self._on_device(faiss.downcast_index(faiss_index.quantizer))

        def add(vectors: Floats, ids: Rows) -> None:
            nearest_cells = np.ascontiguousarray(cells.search(vectors, 1)[1][:, 0])
            pointers = [faiss.swig_ptr(array) for array in (vectors, ids, nearest_cells)]
            faiss_index.add_core(len(ids), *pointers)

        return add

    def _on_device(self, centroids: Any) -> Any:
        """A copy of an index of centroids on the GPU, or the index itself if no GPU is used."""
        if self._gpu_resources is None:
            return centroids
        return faiss.index_cpu_to_gpu(self._gpu_resources, 0, centroids)


def _empty_graph(precision: str) -> Any:
    graph = faiss.IndexHNSWSQ(NUM_FEATURES, _quantizer(precision), HNSW_LINKS)
    return faiss.IndexIDMap(graph)


def _empty_lists(precision: str, count: int) -> Any:
    cells = faiss.IndexFlatL2(NUM_FEATURES)
    if precision:
        lists: Any = faiss.IndexIVFScalarQuantizer(
            cells, NUM_FEATURES, count, _quantizer(precision), faiss.METRIC_L2
        )
    else:
        lists = faiss.IndexIVFFlat(cells, NUM_FEATURES, count, faiss.METRIC_L2)
    lists.cp.seed = SEED
    # This silences FAISS's warning about few training points. `num_lists` already makes
    # fewer lists for few items.
    lists.cp.min_points_per_centroid = 1
    return lists


def _quantizer(precision: str) -> Any:
    quantizers = {"fp16": faiss.ScalarQuantizer.QT_fp16, "sq8": faiss.ScalarQuantizer.QT_8bit}
    return quantizers[precision]
