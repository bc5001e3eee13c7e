"""Measure the recall of a FAISS structure against exact search, and tune its breadth."""

import numpy as np

from indexer.array_types import Doubles
from indexer.metrics import Metric
from indexer.search.exact import Neighbours, find_nearest
from indexer.search.faiss_structure import Structure
from indexer.search.searcher import num_candidates, search_approximately
from indexer.storage.index import Index

RECALL_TARGET, RECALL_K, NUM_RECALL_QUERIES = 0.95, 10, 200
TIE_FACTOR = 1 + 1e-6
"""A match counts as a hit if its distance is at most this factor times the distance of the tenth
nearest item. The factor allows for rounding errors."""
SEED = 0


class RecallMeter:
    """Measures the recall of structures: the share of a query's 10 nearest items that they find.

    The queries are items of the index. A query is not counted as one of its own nearest items. The
    exact search runs only once.
    """

    def __init__(self, index: Index, metric: Metric):
        order = np.random.default_rng(SEED).permutation(len(index.ids))
        self._index = index
        self._own_rows = index.rows[np.sort(order[:NUM_RECALL_QUERIES])]
        self._queries = index.features[self._own_rows]
        self._k = min(RECALL_K, len(index.ids) - 1)
        exact = find_nearest(index, index.rows, self._queries, self._k + 1, metric)
        self._farthest = [
            self._distances_to_others(neighbours, own_row)[self._k - 1]
            for neighbours, own_row in zip(exact, self._own_rows, strict=True)
            if self._k
        ]

    @property
    def num_queries(self) -> int:
        """The number of queries."""
        return len(self._own_rows)

    def recall(self, structure: Structure) -> float:
        """The share of the nearest items that a structure finds; 1 if there is only one item."""
        if not self._k:
            return 1.0
        ids = structure.candidates(self._queries, num_candidates(self._k + 1))
        answers = search_approximately(self._index, structure, self._queries, self._k + 1, ids)
        hits = [
            np.count_nonzero(
                self._distances_to_others(neighbours, own_row) <= farthest * TIE_FACTOR
            )
            for neighbours, own_row, farthest in zip(
                answers, self._own_rows, self._farthest, strict=True
            )
        ]
        return float(np.sum(hits)) / (self._k * len(hits))

    def _distances_to_others(self, neighbours: Neighbours, own_row: int) -> Doubles:
        """The distances of the neighbours that are not the query itself, (k,) or fewer."""
        distances, rows = neighbours
        others: Doubles = distances[rows != own_row][: self._k]
        return others


def tune_breadth(meter: RecallMeter, structure: Structure) -> float:
    """Set a structure's breadth to the smallest value that reaches RECALL_TARGET.

    If no value reaches this recall, set the maximum. Return the recall of the value that was set.
    """
    too_narrow, maximum = structure.breadth - 1, structure.max_breadth
    while (recall := meter.recall(structure)) < RECALL_TARGET and structure.breadth < maximum:
        too_narrow, structure.breadth = structure.breadth, min(2 * structure.breadth, maximum)
    while recall >= RECALL_TARGET and structure.breadth - too_narrow > 1:
        enough, enough_recall = structure.breadth, recall
        structure.breadth = (too_narrow + enough) // 2
        if (recall := meter.recall(structure)) < RECALL_TARGET:
            too_narrow, structure.breadth, recall = structure.breadth, enough, enough_recall
    return recall
