"""Untrained models and made-up items, for benchmarks that need no real data."""

from pathlib import Path
from typing import Literal

import numpy as np

from indexer.array_types import Floats
from indexer.storage.row_writing import NewItem
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model
from training.network.model import NUM_FEATURES


def make_model(
    directory: Path, *, num_classes: int, normalization: Literal["response", "batch"]
) -> None:
    """Write a model directory: the paper's network at 224 pixels with random weights."""
    architecture = Architecture(
        layout="paper", normalization=normalization, num_classes=num_classes, image_size=224
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
    """A feature (4096,) like a real one: never negative, and half of its numbers are zero."""
    return np.maximum(random.standard_normal(NUM_FEATURES, np.float32), 0)


def made_up_item(number: int, feature: Floats, thumbnail: bytes = b"") -> NewItem:
    """An item with one of ten labels. Its path and hash follow from its number."""
    return NewItem(
        path=f"indexed/{number}.jpg",
        label=str(number % 10),
        sha256=f"{number:064x}",
        width=400,
        height=300,
        thumbnail=thumbnail,
        feature=feature,
    )
