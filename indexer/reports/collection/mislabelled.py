"""Rank items by how probably their label is wrong.

Two opinions are compared with the label: the probabilities of a probe that was fitted without the
item (confident learning, Northcutt et al. 2021) and the labels of the nearest other items (Bahri et
al. 2020). The opinions are multiplied. With planted wrong labels, each opinion alone is clearly
worse on some collection, and the product never is: tried on a network's features, on pixels, on
digits and on made-up features. benchmarks/mislabelled.py measures it.
"""

from dataclasses import dataclass

import numpy as np

from indexer.array_types import Doubles, Rows
from indexer.learned.held_out import Mask

NUM_COUNTED = 25
"""Number of nearest items that are counted."""
MIN_PROBABILITY = 1e-3
"""Is added to probabilities, so that a probe that is too sure does not outvote the neighbours."""
MIN_COUNT = 0.5
"""Is added to the number of neighbours with each label (Jeffreys' prior)."""

MAX_PROBABILITY, MAX_NEIGHBOUR_SHARE = 0.02, 0.05
"""A label is suspected if the probe gives it a lower probability and if at most this share of the
neighbours have it. benchmarks/mislabelled.py measures how many planted labels this finds."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """How suspicious each label is."""

    scores: Doubles
    """(n,). The logarithm of the odds for the suggestion against the label."""
    suggestions: Rows
    """(n,). The likeliest other label."""
    is_suspected: Mask
    """(n,). Whether the probe and the neighbours both find the label very unlikely."""


def find_mislabelled(labels: Rows, probabilities: Doubles, neighbour_labels: Rows) -> Suspicion:
    """Compare labels (n,) with probabilities (n, labels) and the neighbours' labels (n, k).

    The opinions are multiplied, as if they were independent. An item with NaN as probabilities is
    not judged: it is not suspected, and its score is minus infinity.
    """
    num_labels = probabilities.shape[1]
    counts = neighbour_counts(neighbour_labels, num_labels)
    is_judged: Mask = np.isfinite(probabilities[:, 0])
    items = np.arange(len(labels))
    beliefs = np.log(np.where(is_judged[:, None], probabilities, 1) + MIN_PROBABILITY)
    beliefs += np.log(counts + MIN_COUNT)
    own = beliefs[items, labels]
    beliefs[items, labels] = -np.inf
    suggestions = beliefs.argmax(axis=1)
    scores = np.where(is_judged, beliefs[items, suggestions] - own, -np.inf)
    is_unlikely = np.nan_to_num(probabilities[items, labels], nan=1) < MAX_PROBABILITY
    num_counted = min(NUM_COUNTED, neighbour_labels.shape[1])
    has_few = counts[items, labels] <= MAX_NEIGHBOUR_SHARE * num_counted
    return Suspicion(scores=scores, suggestions=suggestions, is_suspected=is_unlikely & has_few)


def neighbour_counts(neighbour_labels: Rows, num_labels: int) -> Rows:
    """How many of the NUM_COUNTED nearest items have each label, (n, labels).

    `neighbour_labels` (n, k) has the nearest first.
    """
    counts = np.zeros((len(neighbour_labels), num_labels), np.int64)
    items = np.arange(len(counts))
    for column in neighbour_labels[:, :NUM_COUNTED].T:
        counts[items, column] += 1
    return counts
