"""The items that the report on a collection measures: labelled items, each image once."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from indexer.array_types import Floats, Rows
from indexer.learned.held_out import Mask
from indexer.learned.probe_fitting import labelled_rows
from indexer.reports.collection.findings import TrainedOn
from indexer.reports.collection.training_images import find_held_out
from indexer.storage.index import Index
from training.logistic_regression import stratified_sample
from training.network.model import ModelCard

MAX_ITEMS = 12_000
"""Maximum number of items that are measured. Their features take 200 MB."""
MAX_LABELS = 200
"""Maximum number of labels that are measured. If there are more, the most frequent are taken."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Labelled items of an index with their features. No two items have the same bytes."""

    rows: Rows
    """(n,), in ascending order."""
    labels: Rows
    """(n,). Positions in `names`."""
    names: tuple[str, ...]
    """The labels of these items, in alphabetical order."""
    features: Floats
    """(n, 4096)"""
    trained_on: TrainedOn
    """How many of the labelled items the network was trained on."""
    is_held_out: Mask | None
    """(n,). The items that training held out. It is None if this is unknown."""
    num_labelled: int
    """Number of labelled items in the index, including copies."""
    num_labels_left_out: int
    """Number of labels beyond MAX_LABELS."""
    num_copies: int
    """Number of labelled items that repeat the bytes of another labelled item."""
    conflicts: tuple[tuple[int, ...], ...]
    """Groups of rows. The items of a group have the same bytes but different labels."""


def take_sample(index: Index, card: ModelCard) -> Sample:
    """Take at most MAX_ITEMS labelled items. The same items give the same sample.

    `card` is the card of the index's network.
    """
    counts = index.labels()
    names = tuple(sorted(counts))
    rows, labels = labelled_rows(index, names) if names else (index.rows[:0], index.rows[:0])
    trained_on, is_held_out = find_held_out(index, rows, names, card)
    firsts, conflicts = _distinct(index, rows, labels)
    most_frequent = set(sorted(names, key=lambda name: -counts[name])[:MAX_LABELS])
    is_frequent = np.array([name in most_frequent for name in names], bool)
    usable = firsts[is_frequent[labels[firsts]]]
    chosen = np.sort(usable[stratified_sample(labels[usable], MAX_ITEMS)])
    kept, chosen_labels = np.unique(labels[chosen], return_inverse=True)
    return Sample(
        rows=rows[chosen],
        labels=chosen_labels,
        names=tuple(names[label] for label in kept),
        features=np.asarray(index.features[rows[chosen]]),
        trained_on=trained_on,
        is_held_out=None if is_held_out is None else is_held_out[chosen],
        num_labelled=len(rows),
        num_labels_left_out=len(names) - len(most_frequent),
        num_copies=len(rows) - len(firsts),
        conflicts=conflicts,
    )


def _distinct(index: Index, rows: Rows, labels: Rows) -> tuple[Rows, tuple[tuple[int, ...], ...]]:
    """The positions of the first items with their bytes, and the conflicts (see Sample)."""
    contents = np.ascontiguousarray(index.records["sha256"][rows]).view("S32").reshape(-1)
    _, firsts, numbers = np.unique(contents, return_index=True, return_inverse=True)
    is_odd = labels != labels[firsts][numbers]
    groups = defaultdict(list)
    for position in np.flatnonzero(np.isin(numbers, numbers[is_odd])):
        groups[int(numbers[position])].append(int(rows[position]))
    return np.sort(firsts), tuple(sorted(tuple(group) for group in groups.values()))
