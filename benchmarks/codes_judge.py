"""Scores of rankings: mAP and precision by label, and recall of the nearest neighbours."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.array_types import Floats, Rows
from indexer.reports.ranking import average_precision
from training.parallel import num_cores

NUM_NEIGHBOURS = 10
"""Number of Euclidean neighbours that recall counts."""
PRECISION_AT = (6, 100)
RECALL_AT = (10, 100, 1000)
"""Recall is measured in this number of first items of a ranking by codes."""

Distances = npt.NDArray[np.generic]
"""Distances from each query to each item of the collection, (Q, N). Only their order matters."""


@dataclass(frozen=True)
class Images:
    """The features (n, 4096), pixels (n, 3072) float32 and class numbers (n,) of n images."""

    features: Floats
    pixels: Floats
    labels: Rows

    def __getitem__(self, positions: Rows) -> "Images":
        return Images(self.features[positions], self.pixels[positions], self.labels[positions])


@dataclass(frozen=True)
class Trial:
    """The images from which codes are learned, the collection, and the queries."""

    fitted: Images
    collection: Images
    queries: Images


class Judge:
    """Scores rankings of the collection of a trial."""

    def __init__(self, trial: Trial):
        features, queries = trial.collection.features, trial.queries.features
        squared_lengths = np.einsum("nd,nd->n", features, features)
        self.euclidean: Distances = squared_lengths - 2 * queries @ features.T
        """Squared distances minus the squared length of the query. The order is the same."""
        self._nearest = np.argsort(self.euclidean, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
        self._query_labels = trial.queries.labels
        self._item_labels = trial.collection.labels

    def score(self, distances: Distances) -> dict[str, float]:
        """Rank by distance. Return mAP, precision and recall, as means over the queries.

        Items at the same distance are ranked by position.
        """
        with ThreadPoolExecutor(num_cores()) as pool:
            scores = list(pool.map(self._scores, distances, self._query_labels, self._nearest))
        names = ["mAP"]
        names += [f"precision@{k}" for k in PRECISION_AT]
        names += [f"recall{NUM_NEIGHBOURS}@{k}" for k in RECALL_AT]
        return dict(zip(names, np.array(scores).mean(axis=0).tolist(), strict=True))

    def _scores(self, distances: Distances, label: np.int64, nearest: Rows) -> list[float]:
        """The average precision, the precisions and the recalls of one query.

        `distances` is (N,).
        """
        ranking = np.argsort(distances, kind="stable")
        is_relevant = self._item_labels[ranking] == label
        precisions = [float(np.mean(is_relevant[:k])) for k in PRECISION_AT]
        recalls = [float(np.mean(np.isin(nearest, ranking[:k]))) for k in RECALL_AT]
        return [average_precision(is_relevant), *precisions, *recalls]
