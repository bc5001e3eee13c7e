"""Made-up items, models, encoders and indexes: features without images, and no network."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from indexer.array_types import Floats
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index, Item
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter
from training.files import file_sha256
from training.network.model import ONNX_FILE, ModelCard, write_card

NUM_ITEMS = 60
MODEL_ID = "0" * 64


def made_up_item(number: int, feature: Floats) -> NewItem:
    """An item whose path, label and SHA-256 follow from its number."""
    return NewItem(
        path=f"{number}.png",
        label="even" if number % 2 == 0 else "odd",
        sha256=f"{number:064}",
        width=8,
        height=8,
        thumbnail=b"jpeg",
        feature=feature,
    )


def made_up_features(count: int, seed: int = 1) -> Floats:
    """Features (count, 4096) of random numbers above -0.5."""
    random = np.random.default_rng(seed)
    features = random.gamma(1.0, 1.0, (count, 4096)) - 0.5
    return features.astype(np.float32)


def clusters(
    num_labels: int, num_items: int = NUM_ITEMS, seed: int = 0
) -> tuple[Floats, list[str]]:
    """Features like a network's, not negative, around one centre per label, and their labels.

    The labels take turns.
    """
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1).gamma(1.0, 1.0, (num_labels, 4096))
    label_numbers = np.arange(num_items) % num_labels
    features = np.maximum(centres[label_numbers] + random.normal(0, 1, (num_items, 4096)), 0)
    return features.astype(np.float32), [f"label {number}" for number in label_numbers]


def rays(num_labels: int = 2, num_items: int = 24) -> tuple[Floats, list[str]]:
    """Features that cosine distance ranks by label without a mistake, and their labels.

    Each label has a direction of its own, and its features have very different lengths. So the
    Euclidean neighbours of a short feature are the short features of other labels.
    """
    numbers = np.arange(num_items)
    features = np.zeros((num_items, 4096), np.float32)
    features[numbers, numbers % num_labels] = 3.0 ** (numbers // num_labels)
    return features, [f"label {number % num_labels}" for number in numbers]


def make_index(
    directory: Path,
    model: Path,
    features: Floats,
    labels: Sequence[str | None],
    contents: Sequence[int] | None = None,
) -> Path:
    """Write an index of made-up items. Items with equal `contents` have the same SHA-256."""
    with IndexWriter.open(directory, model) as writer:
        for number, (feature, label) in enumerate(zip(features, labels, strict=True)):
            item = NewItem(
                path=f"{number}.png",
                label=label,
                sha256=f"{contents[number] if contents else number:064}",
                width=8,
                height=8,
                thumbnail=b"jpeg",
                feature=feature,
            )
            writer.add(item)
        writer.commit(is_complete=True)
    return directory


def stand_in_model(directory: Path) -> Path:
    """Write the card and a model.onnx of a few bytes: enough for an index that embeds nothing."""
    directory.mkdir(exist_ok=True)
    (directory / ONNX_FILE).write_bytes(b"not a network")
    card = ModelCard(
        id=MODEL_ID,
        onnx_sha256=file_sha256(directory / ONNX_FILE),
        architecture={},
        class_names=("any",),
        image_size=67,
        recipe={},
        data={},
        metrics={},
        versions={},
        created_at="",
    )
    write_card(card, directory)
    return directory


def add_made_up(directory: Path, numbers: Iterable[int]) -> None:
    """Add the made-up items of these numbers. The first number seeds their features."""
    numbers = list(numbers)
    features = made_up_features(len(numbers), seed=numbers[0])
    with IndexWriter.open(directory) as writer:
        for number, feature in zip(numbers, features, strict=True):
            writer.add(made_up_item(number, feature))
        writer.commit()


def made_up_encoder(num_bits: int = 32, seed: int = 0) -> Encoder:
    """An encoder with random hyperplanes through 0."""
    weights = np.random.default_rng(seed).normal(0, 1, (num_bits, 4096)).astype(np.float32)
    facts = CodeFacts(num_bits=num_bits, num_fitted=20, seed=seed, commit=1, loss=(0.5, 0.25))
    return Encoder(facts, weights, np.zeros(num_bits, np.float32))


def write_codes(directory: Path, encoder: Encoder) -> None:
    """Give an index an encoder and codes."""
    with IndexWriter.open(directory) as writer:
        writer.write_codes(encoder)
        writer.commit()


def items_by_path(directory: Path) -> dict[str, Item]:
    """The items of an index by path."""
    return {item.path: item for item in Index.open(directory).items(limit=10**6)}


def features_by_path(directory: Path) -> dict[str, bytes]:
    """The bytes of each item's feature, by the item's path."""
    index = Index.open(directory)
    return {index.text(row)[0]: index.item_bytes(row).feature for row in index.rows}
