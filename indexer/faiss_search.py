"""The nearest items to a feature: FAISS's exact scan, straight over the memory-mapped features, or on a GPU."""

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from indexer.embedder import Device, Floats, resolve_device
from indexer.index import Index, Item
from training.model import NUM_FEATURES


@dataclass(frozen=True)
class Match:
    """An item and its Euclidean distance from the query's feature."""

    item: Item
    distance: float


class Searcher:
    """Searches one commit of an index. Safe to use from several threads on the CPU; on a GPU, one thread must own it."""

    def __init__(self, index: Index, *, device: Device = "cpu"):
        self.index = index
        self._id_of_row = np.full(len(index.features), -1, np.int64)
        self._id_of_row[index.rows] = index.ids
        self._live = _Rows(index.rows, len(index.features))
        self._gpu = _GpuScan(index) if resolve_device(device) == "gpu" and len(index.rows) else None

    def search(self, features: Floats, k: int, *, label: str | None = None) -> list[list[Match]]:
        """The `k` nearest items to each feature (B, 4096), nearest first; fewer where the index or the label has fewer.

        Distances are Euclidean, as in the paper. With `label`, the nearest of that label, exactly.
        """
        rows = self._live if label is None else _Rows(self.index.rows_of_label(label), len(self.index.features))
        k = min(k, rows.count)
        features = np.ascontiguousarray(features, np.float32)
        assert features.shape == (len(features), NUM_FEATURES)
        if not k:
            return [[] for _ in features]
        if self._gpu and label is None:
            squared, found = self._gpu.search(features, k)
        else:
            squared, found = _scan(features, self.index.features, k, rows)
        ids = self._id_of_row[found]
        items = self.index.items_of([int(id) for id in np.unique(ids)])
        distances = np.sqrt(np.maximum(squared, 0))
        return [
            [Match(items[int(id)], float(distance)) for id, distance in zip(*pair, strict=True)]
            for pair in zip(ids, distances, strict=True)
        ]


class _Rows:
    """A set of feature rows, as FAISS takes it; all of them is no selection at all, which scans faster."""

    def __init__(self, rows: npt.NDArray[np.int64], num_rows: int):
        self.count = len(rows)
        self.selector = None
        if self.count < num_rows:
            is_in = np.zeros(-(-num_rows // 8) * 8, bool)
            is_in[rows] = True
            self._bits = np.packbits(is_in, bitorder="little")  # the selector only points to them
            self.selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))


def _scan(queries: Floats, features: Floats, k: int, rows: _Rows) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Squared distances and rows of the k nearest, (B, k) each. Not `faiss.knn`: that one takes no selection."""
    num_queries = len(queries)
    squared = np.empty((num_queries, k), np.float32)
    found = np.empty((num_queries, k), np.int64)
    faiss.knn_L2sqr(
        faiss.swig_ptr(queries), faiss.swig_ptr(features), NUM_FEATURES, num_queries, len(features), k,
        faiss.swig_ptr(squared), faiss.swig_ptr(found), None, rows.selector,
    )  # fmt: skip
    return squared, found


class _GpuScan:
    """The live features in a GPU's memory."""

    def __init__(self, index: Index):
        self._rows = index.rows
        self._index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), NUM_FEATURES)
        for start in range(0, len(index.rows), 16384):
            self._index.add(index.features[index.rows[start : start + 16384]])

    def search(self, queries: Floats, k: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        squared, places = self._index.search(queries, k)
        return squared, self._rows[places]
