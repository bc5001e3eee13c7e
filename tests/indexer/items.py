"""Made-up items: features without images, and indexes of them."""

from pathlib import Path

import numpy as np

from indexer.storage.writer import IndexWriter, NewItem

NUM_ITEMS = 60


def made_up_item(number: int, feature: np.ndarray) -> NewItem:
    return NewItem(
        path=f"{number}.png",
        label="even" if number % 2 == 0 else "odd",
        sha256=f"{number:064}",
        width=8,
        height=8,
        thumbnail=b"jpeg",
        feature=feature,
    )


def clusters(
    num_labels: int, num_items: int = NUM_ITEMS, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Features like a network's, not negative, about one centre for each label; labels in turn."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1).gamma(1.0, 1.0, (num_labels, 4096))
    features = np.maximum(
        centres[np.arange(num_items) % num_labels] + random.normal(0, 1, (num_items, 4096)), 0
    )
    return features.astype(np.float32), [
        f"label {number % num_labels}" for number in range(num_items)
    ]


def make_index(
    directory: Path,
    model: Path,
    features: np.ndarray,
    labels: list[str | None],
    contents: list[int] | None = None,
) -> Path:
    with IndexWriter.open(directory, model) as writer:
        for number, (feature, label) in enumerate(zip(features, labels, strict=True)):
            sha256 = f"{contents[number] if contents else number:064}"
            writer.add(
                NewItem(
                    path=f"{number}.png",
                    label=label,
                    sha256=sha256,
                    width=8,
                    height=8,
                    thumbnail=b"jpeg",
                    feature=feature,
                )
            )
        writer.commit(is_complete=True)
    return directory
