"""Ask a probe and the neighbours about each item of a sample while the item is left out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from indexer.array_types import Rows
from indexer.learned.held_out import Mask
from indexer.learned.probe import Probe
from indexer.metrics import METRICS, Metric
from indexer.reports.collection.cross_validation import (
    NEIGHBOUR_BLOCK_ITEMS,
    NUM_PROBE_STEPS,
    ProbeAnswers,
    Votes,
    judged_folds,
    leave_one_out_votes,
    leave_out_of_probe,
    nearest_others,
    probe_settings,
)
from indexer.reports.collection.sample import Sample
from indexer.reports.distance_choice import DEFAULT_METRIC, better_metric
from indexer.storage.index import Index
from training.progress import Bar

NUM_NEAREST = 6
"""Number of nearest items whose labels are compared with the label of the item."""


@dataclass(frozen=True, kw_only=True)
class LeftOutAnswers:
    """The answers for the items of a sample, each given while the item is left out."""

    folds: Rows
    """(n,). It is -1 for an item that is not judged."""
    neighbour_labels: dict[Metric, Rows]
    """(n, k) for each metric, the nearest first."""
    precisions: dict[Metric, float | None]
    """The share of the NUM_NEAREST nearest items that have the label of the judged item."""
    label_precisions: dict[Metric, list[float | None]]
    """The same share for the judged items of each label. None if no item of a label is judged."""
    metric: Metric
    """The metric that ranks better. Its neighbours vote."""
    probe: ProbeAnswers
    votes: Votes

    @property
    def is_judged(self) -> Mask:
        """A mask (n,) of the items whose answers can be right."""
        return self.folds >= 0


def answer_left_out(index: Index, sample: Sample) -> LeftOutAnswers | None:
    """Leave out each item in turn. The result is None if no answer could be right or wrong.

    This needs two labels, one of them with two items.
    """
    if len(sample.names) < 2 or not (judged_folds(sample.labels) >= 0).any():
        return None
    num_blocks = -(-len(sample.rows) // NEIGHBOUR_BLOCK_ITEMS)
    with Bar("Measuring", len(METRICS) * num_blocks + NUM_PROBE_STEPS, "steps") as bar:
        return answer_by_neighbours(index, sample, find_neighbours(index, sample, bar), bar)


def find_neighbours(index: Index, sample: Sample, bar: Bar) -> dict[Metric, Rows]:
    """The positions of the nearest other items of each item, (n, k) for each metric."""
    return {metric: nearest_others(index, sample.rows, metric, bar) for metric in METRICS}


def answer_by_neighbours(
    index: Index, sample: Sample, nearest: Mapping[Metric, Rows], bar: Bar
) -> LeftOutAnswers:
    """The answers by the neighbours at the positions `nearest`, and by a probe."""
    from threadpoolctl import threadpool_limits

    labels, folds = sample.labels, judged_folds(sample.labels)
    # Small fits are slower with several threads, and many times slower on a busy machine.
    with threadpool_limits(limits=1):
        settings = probe_settings(sample.features, labels, Probe.load(index), bar)
        probe = leave_out_of_probe(sample.features, labels, folds, settings, bar)
    neighbour_labels = {metric: labels[positions] for metric, positions in nearest.items()}
    precisions: dict[Metric, float | None] = {
        metric: float(np.mean((found[:, :NUM_NEAREST] == labels[:, None])[folds >= 0]))
        for metric, found in neighbour_labels.items()
    }
    label_precisions = {
        metric: _by_label(found[:, :NUM_NEAREST] == labels[:, None], labels, folds >= 0)
        for metric, found in neighbour_labels.items()
    }
    metric = better_metric(precisions) or DEFAULT_METRIC
    return LeftOutAnswers(
        folds=folds,
        neighbour_labels=neighbour_labels,
        precisions=precisions,
        label_precisions=label_precisions,
        metric=metric,
        probe=probe,
        votes=leave_one_out_votes(neighbour_labels[metric], labels, folds),
    )


def _by_label(is_hit: Mask, labels: Rows, is_judged: Mask) -> list[float | None]:
    """The share of hits (n, k) of the judged items of each label, (labels,)."""
    shares, counted = is_hit[is_judged].mean(axis=1), labels[is_judged]
    num_labels = int(labels.max()) + 1
    totals = np.bincount(counted, shares, minlength=num_labels)
    counts = np.bincount(counted, minlength=num_labels)
    return [
        float(total / count) if count else None for total, count in zip(totals, counts, strict=True)
    ]
