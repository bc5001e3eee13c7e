"""Find out which items of an index its network was trained on, as far as this is known.

The model does not list its training images. Its card has the labels, and the numbers of training
images and of held-out images. An index with these labels, these numbers and paths of the same form
was made from the training data. Then the path of an item says whether training held it out. In all
other cases it is unknown which items the network was trained on: different labels prove nothing,
because an index can contain some of the labels of the training data, or its images under other
labels.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Rows
from indexer.learned.held_out import (
    TRAIN_FOLDER,
    Mask,
    Text,
    held_out_by_training,
    held_out_folder,
    is_folder_name,
    without_copies,
)
from indexer.reports.collection.findings import TrainedOn, TrainingFacts
from indexer.storage.index import Index
from training.data.datasets import HELD_OUT_FOLDERS, open_dataset
from training.errors import UserError
from training.network.model import ModelCard


def training_facts(card: ModelCard, labels: Sequence[str]) -> TrainingFacts:
    """The facts about the training images in a card, and how many of these labels are classes."""
    data = card.data
    num_train = data.get("num_train")
    return TrainingFacts(
        data=Path(str(data.get("name") or "")).name or None,
        num_train=None if num_train is None else int(num_train),
        init=str(data["init"]) if data.get("init") else None,
        num_shared_labels=len(set(card.class_names) & set(labels)),
    )


def classes_are_labels(card: ModelCard, labels: Sequence[str]) -> bool:
    """Whether the network's classes are the labels of the items."""
    return set(card.class_names) == set(labels)


def find_held_out(
    index: Index, rows: Rows, labels: Sequence[str], card: ModelCard
) -> tuple[TrainedOn, Mask | None]:
    """How many of the rows (n,) the network was trained on, and a mask of the held-out rows.

    `labels` are the labels of these rows, each of them once. The mask is None if it is unknown.
    """
    data = card.data
    has_numbers = {"num_train", "num_held_out"} <= data.keys() and not data.get("validation")
    if not has_numbers or not classes_are_labels(card, labels):
        return "unknown", None
    texts = [index.text(row) for row in rows]
    trained_on = _trained_on_one_part(texts, data)
    if trained_on is not None:
        return trained_on, np.full(len(rows), trained_on == "none")
    is_held_out = _held_out(texts, data)
    if is_held_out is None:
        return "unknown", None
    return "some", without_copies(index, rows, is_held_out)


def _trained_on_one_part(texts: Sequence[Text], data: Mapping[str, Any]) -> TrainedOn | None:
    """`all` if these images are the folder `train` of the training data, `none` if they are `val`.

    The result is None if they are not one of these two parts.
    """
    folders = {path.partition("/")[0] for path, _ in texts}
    if len(folders) != 1 or not is_folder_name(_name(data)) or not _are_in_label_folders(texts, 1):
        return None
    folder, count = folders.pop(), len(texts)
    if folder == TRAIN_FOLDER and count == int(data["num_train"]):
        return "all"
    if folder in HELD_OUT_FOLDERS and count == int(data["num_held_out"]):
        return "none"
    return None


def _held_out(texts: Sequence[Text], data: Mapping[str, Any]) -> Mask | None:
    """A mask (n,) of the images that training surely held out.

    It is None if these images are not known to be the training data.
    """
    name, num_train, num_held_out = _name(data), int(data["num_train"]), int(data["num_held_out"])
    is_held_out = held_out_by_training(texts, name)
    has_folders = held_out_folder((path for path, _ in texts), name) is not None
    # Training chose a fifth before it skipped unreadable images, and the index lacks them.
    num_skipped = 0 if has_folders else int(data.get("num_skipped", 0))
    if len(texts) != num_train + num_held_out:
        return None
    if abs(int(is_held_out.sum()) - num_held_out) > num_skipped:
        return None
    if is_folder_name(name):
        have_same_paths = _are_in_label_folders(texts, 1 if has_folders else 0)
    else:
        have_same_paths = _are_listed(texts, name)
    if not have_same_paths:
        return None
    return _without_last(texts, is_held_out, num_skipped) if num_skipped else is_held_out


def _are_in_label_folders(texts: Sequence[Text], depth: int) -> bool:
    """Whether the folder at this depth of each path is the label, as in a folder of class folders.

    The paths from a CSV or from shards of the same images can differ, and training chooses the
    images to hold out by their paths.
    """
    return all(path.split("/")[depth:][:1] == [label] for path, label in texts)


def _are_listed(texts: Sequence[Text], data: str) -> bool:
    """Whether a CSV or shards still exist and list all these paths with these labels."""
    try:
        examples = open_dataset(data).part("all")
    except (UserError, OSError):
        return False
    return set(texts) <= {(example.path, example.label) for example in examples}


def _without_last(texts: Sequence[Text], is_held_out: Mask, count: int) -> Mask:
    """Leave out the last `count` held-out images of each label, in the order of `split`.

    `count` is the number of images that training skipped. If the skipped images had come first in
    this order, training would have held out fewer of the others.
    """
    by_label = defaultdict(list)
    for position in np.flatnonzero(is_held_out).tolist():
        path, label = texts[position]
        by_label[label].append((hashlib.sha256(path.encode()).digest(), position))
    surely = np.zeros(len(texts), bool)
    for members in by_label.values():
        surely[[position for _, position in sorted(members)[:-count]]] = True
    return surely


def _name(data: Mapping[str, Any]) -> str:
    return str(data.get("name", ""))
