"""How many wrong labels are among the first that the report on a collection lists?

    python -m benchmarks.mislabelled INDEX [--seeds N] [--name NAME]

Two per cent of the labels of an index's items are replaced by random other labels, in memory. The
report then ranks the items by how probably their label is wrong. The share of the planted labels
among the first four per cent is measured, for several seeds. The index is not changed. For
comparison, the items are also ranked by the probe alone and by the neighbours alone.

If the network of the index was trained on these images, it was trained with the right labels. The
share is therefore also measured for the items that it was trained on (`seen`), and for the others.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from indexer.array_types import Doubles, Rows
from indexer.learned.held_out import Mask
from indexer.metrics import METRICS, Metric
from indexer.reports.collection.answers import (
    answer_by_neighbours,
    find_neighbours,
)
from indexer.reports.collection.cross_validation import NEIGHBOUR_BLOCK_ITEMS, NUM_PROBE_STEPS
from indexer.reports.collection.mislabelled import find_mislabelled, neighbour_counts
from indexer.reports.collection.sample import Sample, take_sample
from indexer.storage.index import Index
from indexer.storage.manifest import MODEL_FOLDER
from training.network.model import read_card
from training.progress import Bar

PLANTED_SHARE = 0.02
LISTED_SHARE = 0.04
GOAL = 0.6
"""The share of the planted labels that the first four per cent should contain."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--name", default="mislabelled")
    arguments = parser.parse_args()
    figures = measure(arguments.index, range(arguments.seeds))
    record(arguments.name, figures, model=arguments.index / MODEL_FOLDER)


def measure(directory: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Plant wrong labels once per seed, and measure the share that is found."""
    index = Index.open(directory)
    sample = take_sample(index, read_card(directory / MODEL_FOLDER))
    num_blocks = -(-len(sample.rows) // NEIGHBOUR_BLOCK_ITEMS)
    num_steps = len(METRICS) * num_blocks + len(seeds) * NUM_PROBE_STEPS
    with Bar("Measuring", num_steps, "steps") as bar:
        nearest = find_neighbours(index, sample, bar)
        rounds = [measure_seed(index, sample, nearest, seed, bar) for seed in seeds]
    return {
        "items": len(sample.rows),
        "labels": len(sample.names),
        "trained_on": sample.trained_on,
        "planted": round(PLANTED_SHARE * len(sample.rows)),
        "listed": round(LISTED_SHARE * len(sample.rows)),
        "seeds": len(seeds),
        "goal": GOAL,
        **{name: spread([found[name] for found in rounds]) for name in rounds[0]},
    }


def measure_seed(
    index: Index, sample: Sample, nearest: dict[Metric, Rows], seed: int, bar: Bar
) -> dict[str, float | None]:
    """The shares for one seed. `nearest` has the positions of the neighbours of each item.

    A share is None if there is nothing to share out: a part without a planted label, or no
    suspected item.
    """
    labels, is_planted = plant(sample.labels, len(sample.names), seed)
    planted = replace(sample, labels=labels)
    answers = answer_by_neighbours(index, planted, nearest, bar)
    own_counts = neighbour_counts(answers.neighbour_labels[answers.metric], len(sample.names))
    suspicion = find_mislabelled(
        labels, answers.probe.probabilities, answers.neighbour_labels[answers.metric]
    )
    items = np.arange(len(labels))
    rankings = {
        "found": suspicion.scores,
        "found_by_probe": -answers.probe.probabilities[items, labels],
        "found_by_neighbours": -own_counts[items, labels].astype(np.float64),
    }
    figures: dict[str, float | None] = {
        name: share_found(scores, is_planted) for name, scores in rankings.items()
    }
    if sample.is_held_out is not None and sample.trained_on == "some":
        for name, part in (("seen", ~sample.is_held_out), ("unseen", sample.is_held_out)):
            figures[f"found_{name}"] = share_found(suspicion.scores[part], is_planted[part])
    num_suspected = int(suspicion.is_suspected.sum())
    figures["suspected"] = num_suspected
    figures["suspected_recall"] = float(suspicion.is_suspected[is_planted].mean())
    figures["suspected_precision"] = (
        float(is_planted[suspicion.is_suspected].mean()) if num_suspected else None
    )
    return figures


def plant(labels: Rows, num_labels: int, seed: int) -> tuple[Rows, Mask]:
    """Give PLANTED_SHARE of the items a random other label.

    Returns all labels (n,) and a mask (n,) of the items with a planted label.
    """
    random = np.random.default_rng(seed)
    num_planted = max(round(PLANTED_SHARE * len(labels)), 1)
    chosen = random.choice(len(labels), num_planted, replace=False)
    planted, is_planted = labels.copy(), np.zeros(len(labels), bool)
    planted[chosen] = (labels[chosen] + random.integers(1, num_labels, num_planted)) % num_labels
    is_planted[chosen] = True
    return planted, is_planted


def share_found(scores: Doubles, is_planted: Mask) -> float | None:
    """The share of the planted labels among the LISTED_SHARE of items with the highest scores.

    It is None if no label is planted.
    """
    if not is_planted.any():
        return None
    num_listed = round(LISTED_SHARE * len(scores))
    listed = np.argsort(-scores, kind="stable")[:num_listed]
    return float(is_planted[listed].sum() / is_planted.sum())


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """The mean, the smallest and the largest of the values that are not None.

    If some values are None, `seeds` is the number of the others. If all are None, so is the result.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    figures = {
        "mean": round(float(np.mean(known)), 4),
        "min": round(min(known), 4),
        "max": round(max(known), 4),
    }
    return figures if len(known) == len(values) else {**figures, "seeds": len(known)}


if __name__ == "__main__":
    main()
