"""Top-1 of the network, the probe and the neighbours' vote, beside chance, part by part."""

from collections.abc import Sequence

import numpy as np

from indexer.array_types import Rows
from indexer.learned.held_out import Mask
from indexer.reports.collection.cross_validation import ProbeAnswers, Votes
from indexer.reports.collection.findings import METHODS, Accuracies, Method, Part, Share
from indexer.reports.collection.sample import Sample
from indexer.reports.collection.training_images import classes_are_labels
from training.network.model import ModelCard

INTERVAL_WIDTH = 1.96
"""Half the width of a 95 % interval, in standard deviations."""


def share_of(num_right: int, count: int) -> Share:
    """The share of right answers with its 95 % interval (Wilson 1927). `count` is at least 1."""
    value, z_squared = num_right / count, INTERVAL_WIDTH**2
    middle = (value + z_squared / (2 * count)) / (1 + z_squared / count)
    variance = value * (1 - value) / count + z_squared / (4 * count**2)
    half = INTERVAL_WIDTH * variance**0.5 / (1 + z_squared / count)
    return Share(value=value, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def accuracies_on(
    part: Part, right: dict[Method, Mask], labels: Rows, network: Share | None = None
) -> Accuracies:
    """The accuracies of `right` answers (n,) of each method for the images with `labels` (n,).

    `network` is the stored accuracy of the network on this part, if `right` has none.
    """
    shares = {method: share_of(int(mask.sum()), len(mask)) for method, mask in right.items()}
    return Accuracies(
        part=part,
        num_images=len(labels),
        network=shares.get("network", network),
        probe=shares.get("probe"),
        vote=shares.get("vote"),
        chance=float(np.bincount(labels).max() / len(labels)),
    )


def measure_parts(
    card: ModelCard,
    sample: Sample,
    folds: Rows,
    probe: ProbeAnswers,
    votes: Votes,
    new_images: Accuracies | None,
) -> list[Accuracies]:
    """The accuracies on each part. The part that says most about new images comes first."""
    labels, is_judged = sample.labels, folds >= 0
    right: dict[Method, Mask] = {
        "probe": np.nan_to_num(probe.probabilities).argmax(axis=1) == labels,
        "vote": votes.winners == labels,
    }

    def measure(part: Part, is_asked: Mask, network: Share | None) -> Accuracies:
        masks = {method: mask[is_asked] for method, mask in right.items()}
        return accuracies_on(part, masks, labels[is_asked], network)

    parts = [new_images] if new_images else []
    alone = network_alone(card, sample.names)
    if sample.is_held_out is not None:
        is_asked = is_judged & sample.is_held_out
        if is_asked.any():
            parts.append(measure("held-out", is_asked, alone[0].network if alone else None))
            alone = []
    if sample.trained_on == "none":  # then the held-out items are all items
        return [*parts, *alone]
    return [*parts, measure("items", is_judged, None), *alone]


def network_alone(card: ModelCard, names: Sequence[str]) -> list[Accuracies]:
    """The top-1 of the network on the images that its training held out, as the card states it.

    The list is empty if the card has no top-1, or if the network has other classes than `names`.
    """
    top1, count = card.metrics.get("top1"), int(card.metrics.get("num_images", 0))
    if top1 is None or not count or (names and not classes_are_labels(card, names)):
        return []
    network = share_of(round(top1 * count), count)
    return [
        Accuracies(
            part="network", num_images=count, network=network, probe=None, vote=None, chance=None
        )
    ]


def top1_of(accuracies: Accuracies, method: Method) -> Share | None:
    """The top-1 of one method. It is None if the method was not measured on this part."""
    return {
        "network": accuracies.network,
        "probe": accuracies.probe,
        "vote": accuracies.vote,
    }[method]


def best_method(parts: Sequence[Accuracies]) -> Method | None:
    """The method with the highest top-1 on the first part. It is None if nothing was measured."""
    if not parts or parts[0].part == "network":
        return None
    measured = {
        method: share.value
        for method in METHODS
        if (share := top1_of(parts[0], method)) is not None
    }
    return max(measured, key=lambda method: measured[method], default=None)
