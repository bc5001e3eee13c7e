"""The distances between features, straight from their definitions."""

import numpy as np

from indexer.array_types import Doubles, Floats
from indexer.metrics import Metric


def distances_by_definition(queries: Floats, features: Floats, metric: Metric) -> Doubles:
    """Queries (Q, D) and features (n, D) -> distances (Q, n) in doubles."""
    distances = np.empty((len(queries), len(features)))
    for row, query in zip(distances, queries.astype(np.float64), strict=True):
        for position, feature in enumerate(features.astype(np.float64)):
            if metric == "euclidean":
                row[position] = np.sqrt(np.sum((feature - query) ** 2))
            else:
                lengths = np.sqrt(np.sum(feature**2) * np.sum(query**2))
                row[position] = 1 - (np.sum(feature * query) / lengths if lengths else 0)
    return distances
