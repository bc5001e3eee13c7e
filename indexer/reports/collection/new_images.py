"""Ask the network, a probe and the neighbours about labelled images that are not in the index."""

import hashlib
from dataclasses import dataclass

import numpy as np

from indexer.answers import embed_images
from indexer.array_types import Floats, Rows
from indexer.embedder import Embedder
from indexer.learned.held_out import Mask
from indexer.learned.probe_fitting import count_votes
from indexer.metrics import Metric, unit
from indexer.reports.collection.accuracies import accuracies_on
from indexer.reports.collection.cross_validation import NEIGHBOUR_BLOCK_ITEMS, ProbeAnswers
from indexer.reports.collection.findings import Accuracies, Method
from indexer.reports.collection.sample import Sample
from indexer.search.exact import find_nearest
from indexer.storage.index import Index
from training.data.datasets import open_dataset
from training.data.examples import DataError, Example
from training.data.images import ImageError, read_bytes
from training.logistic_regression import fit_linear
from training.network.model import ModelCard


@dataclass(frozen=True, kw_only=True)
class NewImages:
    """Labelled images that are not in the index, embedded."""

    features: Floats
    """(Q, 4096)"""
    classes: Rows
    """(Q,). The network's likeliest class of each image."""
    labels: Rows
    """(Q,). Positions in the names of the sample."""
    num_left_out: int
    """Number of images that cannot be read, that are in the index, or with another label."""


def embed_new_images(data: str, index: Index, sample: Sample, embedder: Embedder) -> NewImages:
    """Embed the images of `data`; raises DataError if none of them can be used."""
    positions = {name: position for position, name in enumerate(sample.names)}
    examples = open_dataset(data).part("all")
    usable = [
        example
        for example in examples
        if example.label in positions and not _is_indexed(example, index)
    ]

    def skip(position: int, error: ImageError) -> None:
        pass  # counted below

    features: list[Floats] = []
    classes: list[Rows] = []
    labels: list[int] = []
    for batch in embed_images(
        [example.source for example in usable], embedder, skip_unreadable=skip
    ):
        features.append(batch.embedding.features)
        classes.append(batch.embedding.logits.argmax(axis=1))
        labels.extend(positions[str(usable[position].label)] for position in batch.positions)
    if not labels:
        raise DataError(
            f"none of the {len(examples):,} images of {data} can be asked about: they need a label "
            "of the index, and must not be in the index; pass other labelled images as --queries"
        )
    return NewImages(
        features=np.concatenate(features),
        classes=np.concatenate(classes),
        labels=np.array(labels),
        num_left_out=len(examples) - len(labels),
    )


def answers_for_new_images(
    index: Index,
    card: ModelCard,
    sample: Sample,
    images: NewImages,
    probe: ProbeAnswers,
    metric: Metric,
    num_voters: int,
) -> Accuracies:
    """Top-1 on new images. The probe is fitted on the sample, and its items are the neighbours.

    The network is asked only if each label is one of its classes.
    """
    weights, bias = fit_linear(sample.features, sample.labels, probe.scaling, probe.inverse_penalty)
    features = unit(images.features) if probe.scaling == "length" else images.features
    right: dict[Method, Mask] = {
        "probe": (features @ weights.T + bias).argmax(axis=1) == images.labels,
        "vote": _vote(index, sample, images.features, metric, num_voters) == images.labels,
    }
    if set(sample.names) <= set(card.class_names):
        classes = np.array([card.class_names.index(name) for name in sample.names])
        right["network"] = images.classes == classes[images.labels]
    return accuracies_on("queries", right, images.labels)


def _vote(index: Index, sample: Sample, queries: Floats, metric: Metric, num_voters: int) -> Rows:
    """The label (Q,) that the nearest items of the sample vote for."""
    winners = []
    for start in range(0, len(queries), NEIGHBOUR_BLOCK_ITEMS):
        block = queries[start : start + NEIGHBOUR_BLOCK_ITEMS]
        nearest = find_nearest(index, sample.rows, block, num_voters, metric)
        rows = np.stack([found for _, found in nearest])
        winners.append(count_votes(sample.labels[np.searchsorted(sample.rows, rows)]))
    return np.concatenate(winners)


def _is_indexed(example: Example, index: Index) -> bool:
    """Whether an item has the bytes of this image. An unreadable image counts as not indexed."""
    source = example.source
    try:
        content = source if isinstance(source, bytes) else read_bytes(source)
    except ImageError:
        return False
    return len(index.rows_of_content(hashlib.sha256(content).hexdigest())) > 0
