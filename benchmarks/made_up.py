"""Untrained models and made-up items, for benchmarks that need no real data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.array_types import Floats
from indexer.storage.row_writing import NewItem
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model
from training.network.model import NUM_FEATURES

ITEMS_PER_CLUSTER = 100
CENTRE_SPREAD, NOISE = 2.0, 1.5
"""Standard deviation of the centres of the clusters, and of the features around their centre."""
BLOCK_SIZE = 1000


def make_model(
    directory: Path,
    *,
    num_classes: int,
    normalization: Literal["response", "batch"],
    image_size: int = 224,
) -> None:
    """Write a model directory with the paper's network and random weights."""
    architecture = Architecture(
        layout="paper", normalization=normalization, num_classes=num_classes, image_size=image_size
    )
    network = AlexNet(architecture)
    initialize(network, "paper" if normalization == "response" else "kaiming", seed=0)
    save_model(
        network,
        directory,
        class_names=tuple(map(str, range(num_classes))),
        recipe={},
        data={"name": "made up"},
        metrics={},
    )


def made_up_feature(random: np.random.Generator) -> Floats:
    """A feature (4096,) similar to a real one: no number is negative, and half of them are zero."""
    return np.maximum(random.standard_normal(NUM_FEATURES, np.float32), 0)


def made_up_item(number: int, feature: Floats, thumbnail: bytes = b"") -> NewItem:
    """An item with one of ten labels. The label, the path and the hash depend on the number."""
    return NewItem(
        path=f"indexed/{number}.jpg",
        label=str(number % 10),
        sha256=f"{number:064x}",
        width=400,
        height=300,
        thumbnail=thumbnail,
        feature=feature,
    )


def made_up_blocks(count: int, *, seed: int, num_items: int) -> Iterator[Floats]:
    """Make `count` features in clusters. Yield blocks (BLOCK_SIZE, 4096) float32.

    A centre is computed from the number of its cluster, so the centres are not kept in memory.
    """
    random = np.random.default_rng(seed)
    num_clusters = max(1, num_items // ITEMS_PER_CLUSTER)
    for start in range(0, count, BLOCK_SIZE):
        clusters = random.integers(0, num_clusters, min(BLOCK_SIZE, count - start))
        centres = np.stack([_centre(cluster) for cluster in clusters.tolist()])
        noise = NOISE * random.standard_normal(centres.shape, np.float32)
        yield np.maximum(CENTRE_SPREAD * centres + noise, 0, dtype=np.float32)


def _centre(cluster: int) -> Floats:
    return np.random.default_rng(10_000 + cluster).standard_normal(NUM_FEATURES, np.float32)
