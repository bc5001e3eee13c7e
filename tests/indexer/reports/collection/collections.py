"""Made-up collections for the report: features around one centre per label, with known mistakes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.array_types import Floats
from indexer.reports.collection.sample import Sample, take_sample
from indexer.storage.index import Index
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter
from tests.indexer.items import clusters, stand_in_model
from training.network.model import ModelCard, read_card, write_card

NASTY = 'a"b\n<script>&'


def write_collection(
    directory: Path,
    features: Floats,
    labels: Sequence[str | None],
    *,
    classes: Sequence[str] = ("any",),
    data: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    contents: Sequence[int] | None = None,
    paths: Sequence[str] | None = None,
) -> Path:
    """Write an index whose network has these classes, training data and metrics."""
    model = stand_in_model(directory.with_name(f"{directory.name}-model"))
    card = dataclasses.replace(
        read_card(model), class_names=tuple(classes), data=data or {}, metrics=metrics or {}
    )
    write_card(card, model)
    with IndexWriter.open(directory, model) as writer:
        for number, (feature, label) in enumerate(zip(features, labels, strict=True)):
            writer.add(
                NewItem(
                    path=paths[number] if paths else f"{number:03}.png",
                    label=label,
                    sha256=f"{contents[number] if contents else number:064}",
                    width=8,
                    height=8,
                    thumbnail=b"jpeg",
                    feature=feature,
                )
            )
        writer.commit(is_complete=True)
    return directory


def clear_collection(directory: Path, num_labels: int = 3, num_items: int = 60) -> Path:
    """An index whose labels are easy to tell apart, with two wrong labels: items 0 and 4."""
    features, labels = clusters(num_labels, num_items)
    labels[0], labels[4] = "label 1", "label 2"
    return write_collection(directory, features, labels)


def open_sample(directory: Path) -> tuple[Index, Sample, ModelCard]:
    """The opened index, its sample and the card of its network."""
    index, card = Index.open(directory), read_card(directory / "model")
    return index, take_sample(index, card), card
