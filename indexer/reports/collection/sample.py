"""The items that the report on a collection measures: labelled items, each image once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from indexer.array_types import Floats, Rows
from indexer.learned.probe_fitting import (
    Mask,
    labelled_rows,
    stratified_sample,
    without_copies,
)
from indexer.storage.index import Index
from training.data.datasets import HELD_OUT_FOLDERS, split
from training.data.examples import Example
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
    is_unseen: Mask | None
    """(n,). The items that the network was not trained on. It is None if this is unknown."""
    num_labelled: int
    """Number of labelled items in the index, including copies."""
    num_labels_left_out: int
    """Number of labels beyond MAX_LABELS."""
    num_copies: int
    """Number of labelled items that repeat the bytes of another labelled item."""
    conflicts: tuple[tuple[int, ...], ...]
    """Groups of rows. The items of a group have the same bytes but different labels."""

    @property
    def trained_on(self) -> Literal["none", "some", "unknown"]:
        """How many of these items the network was trained on."""
        if self.is_unseen is None:
            return "unknown"
        return "none" if self.is_unseen.all() else "some"


def take_sample(index: Index, card: ModelCard) -> Sample:
    """Take at most MAX_ITEMS labelled items. The same items give the same sample.

    `card` is the card of the index's network.
    """
    counts = index.labels()
    names = tuple(sorted(counts))
    rows, labels = labelled_rows(index, names) if names else (index.rows[:0], index.rows[:0])
    is_unseen = _unseen(index, rows, names, card)
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
        is_unseen=None if is_unseen is None else is_unseen[chosen],
        num_labelled=len(rows),
        num_labels_left_out=len(names) - len(most_frequent),
        num_copies=len(rows) - len(firsts),
        conflicts=conflicts,
    )


def classes_are_labels(card: ModelCard, labels: Sequence[str]) -> bool:
    """Whether the network's classes are the labels of the items."""
    return set(card.class_names) == set(labels)


def _distinct(index: Index, rows: Rows, labels: Rows) -> tuple[Rows, tuple[tuple[int, ...], ...]]:
    """The positions of the first items with their bytes, and the conflicts (see Sample)."""
    contents = np.ascontiguousarray(index.records["sha256"][rows]).view("S32").reshape(-1)
    _, firsts, numbers = np.unique(contents, return_index=True, return_inverse=True)
    is_odd = labels != labels[firsts][numbers]
    groups = defaultdict(list)
    for position in np.flatnonzero(np.isin(numbers, numbers[is_odd])):
        groups[int(numbers[position])].append(int(rows[position]))
    return np.sort(firsts), tuple(sorted(tuple(group) for group in groups.values()))


def _unseen(index: Index, rows: Rows, names: Sequence[str], card: ModelCard) -> Mask | None:
    """A mask (n,) of the rows that the network was not trained on. It is None if it is unknown.

    A network with other classes was not trained on these labels. Otherwise, the rows are split as
    training splits a data set. If this gives the numbers of images that the card states, the
    network was trained on these images.
    """
    if not classes_are_labels(card, names):
        return np.ones(len(rows), bool)
    texts = [index.text(row) for row in rows]
    held_out_paths = _held_out_paths([Example(path, label, b"") for path, label in texts])
    is_held_out = np.array([path in held_out_paths for path, _ in texts], bool)
    if not _has_these_numbers(card.data, is_held_out):
        return None
    return without_copies(index, rows, is_held_out)


def _held_out_paths(examples: Sequence[Example]) -> set[str]:
    """The paths that training holds out: those in a folder like `val`, or else a fifth."""
    folders = {example.path.partition("/")[0] for example in examples}
    folder = next((name for name in HELD_OUT_FOLDERS if name in folders), None)
    if folder is not None and "train" in folders:
        return {example.path for example in examples if example.path.startswith(f"{folder}/")}
    return {example.path for example in split(examples)[1]}


def _has_these_numbers(data: Mapping[str, Any], is_held_out: Mask) -> bool:
    """Whether a card's training data has as many kept and held-out images as the mask.

    Images that training skipped may be missing.
    """
    num_held_out = int(is_held_out.sum())
    counts = {"num_train": len(is_held_out) - num_held_out, "num_held_out": num_held_out}
    if data.get("validation") or not counts.keys() <= data.keys():
        return False
    tolerance = int(data.get("num_skipped", 0))
    return all(abs(int(data[name]) - count) <= tolerance for name, count in counts.items())
