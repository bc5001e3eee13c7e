import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.learned.held_out import Text
from indexer.reports.collection.findings import TrainedOn
from indexer.reports.collection.training_images import (
    classes_are_labels,
    find_held_out,
    training_facts,
)
from indexer.storage.index import Index
from indexer.updates.build import build
from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import open_sample, write_collection
from tests.training.learning.small_requests import make_request
from training.data.datasets import open_dataset, split
from training.data.examples import Example
from training.learning.session import train
from training.network.model import read_card

CLASSES = ("label 0", "label 1")


def write_items(
    directory: Path,
    texts: Sequence[Text],
    data: Mapping[str, Any],
    *,
    classes: Sequence[str] = CLASSES,
    contents: Sequence[int] | None = None,
) -> Path:
    """Write an index of items with these paths and labels. `data` describes the training data."""
    return write_collection(
        directory,
        clusters(2, len(texts))[0],
        [label for _, label in texts],
        classes=classes,
        data=data,
        contents=contents,
        paths=[path for path, _ in texts],
    )


def found(directory: Path) -> tuple[TrainedOn, set[str] | None]:
    """How many of the items the network was trained on, and the paths of the held-out items."""
    index, card = Index.open(directory), read_card(directory / "model")
    trained_on, is_held_out = find_held_out(index, index.rows, [*index.labels()], card)
    if is_held_out is None:
        return trained_on, None
    return trained_on, {index.text(row)[0] for row in index.rows[is_held_out]}


def in_class_folders(count: int = 20, before: str = "") -> list[Text]:
    return [
        (f"{before}label {number % 2}/{number}.png", f"label {number % 2}")
        for number in range(count)
    ]


def in_train_and_val(num_train: int, num_val: int) -> list[Text]:
    return in_class_folders(num_train, "train/") + in_class_folders(num_val, "val/")


def held_out_paths(texts: Sequence[Text]) -> set[str]:
    return {example.path for example in split(Example(path, name, b"") for path, name in texts)[1]}


def test_of_the_training_data_the_fifth_that_training_held_out_is_known(tmp_path: Path) -> None:
    texts = in_class_folders()
    data = {"name": "/data/photos", "num_train": 16, "num_held_out": 4, "num_skipped": 0}
    directory = write_items(tmp_path / "index", texts, data)
    assert found(directory) == ("some", held_out_paths(texts))


def test_a_folder_of_held_out_images_is_known_except_copies_of_training_images(
    tmp_path: Path,
) -> None:
    data = {"name": "photos", "num_train": 7, "num_held_out": 3}
    contents = [*range(9), 1]  # item 9 has the bytes of item 1
    directory = write_items(tmp_path / "i", in_train_and_val(7, 3), data, contents=contents)
    assert found(directory) == ("some", {"val/label 0/0.png", "val/label 1/1.png"})


def test_an_index_of_one_part_of_the_training_data_is_known(tmp_path: Path) -> None:
    data = {"name": "photos", "num_train": 12, "num_held_out": 6}
    held_out, kept = in_class_folders(6, "val/"), in_class_folders(12, "train/")
    assert found(write_items(tmp_path / "val", held_out, data)) == (
        "none",
        {path for path, _ in held_out},
    )
    assert found(write_items(tmp_path / "train", kept, data)) == ("all", set())


@pytest.mark.parametrize(
    ("texts", "data"),
    [
        # An imported network does not say what it was trained on.
        (in_class_folders(), {"name": "torchvision alexnet, imported from alexnet.pth"}),
        (in_class_folders(), {}),
        # The index has other numbers of images than the training data.
        (in_class_folders(), {"name": "photos", "num_train": 90, "num_held_out": 20}),
        (in_train_and_val(10, 10), {"name": "photos", "num_train": 16, "num_held_out": 4}),
        (in_class_folders(5, "val/"), {"name": "photos", "num_train": 15, "num_held_out": 4}),
        # The held-out images were other data.
        (
            in_class_folders(),
            {"name": "photos", "num_train": 16, "num_held_out": 4, "validation": "other"},
        ),
        # The paths are not those of the folder, so training held out other images.
        (in_class_folders(20, "photos-0/"), {"name": "photos", "num_train": 16, "num_held_out": 4}),
        # The CSV and the shards are not there, so the paths in them are unknown.
        (in_class_folders(), {"name": "photos.csv", "num_train": 16, "num_held_out": 4}),
        (in_class_folders(), {"name": "photos-*.tar", "num_train": 16, "num_held_out": 4}),
        (in_class_folders(4, "val/"), {"name": "photos.csv", "num_train": 16, "num_held_out": 4}),
    ],
)
def test_otherwise_nothing_is_known(
    tmp_path: Path, texts: list[Text], data: dict[str, object]
) -> None:
    assert found(write_items(tmp_path / "index", texts, data)) == ("unknown", None)


@pytest.mark.parametrize(
    "classes", [("label 0", "label 1", "label 2"), ("label 0",), ("cat", "dog")]
)
def test_other_classes_do_not_prove_that_the_network_did_not_see_the_items(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    data = {"name": "photos", "num_train": 16, "num_held_out": 4}
    directory = write_items(tmp_path / "index", in_class_folders(), data, classes=classes)
    assert found(directory) == ("unknown", None)
    _, sample, card = open_sample(directory)
    assert not classes_are_labels(card, sample.names)
    assert (sample.trained_on, sample.is_held_out) == ("unknown", None)


def test_the_paths_of_a_csv_are_known_while_it_is_there(tmp_path: Path) -> None:
    texts = in_train_and_val(15, 5)
    file = tmp_path / "photos.csv"
    file.write_text("\n".join(["path,label", *(",".join(map(str, text)) for text in texts)]))
    data = {"name": str(file), "num_train": 17, "num_held_out": 3}
    directory = write_items(tmp_path / "index", texts, data)
    expected = {example.path for example in open_dataset(file).part("held-out")}
    assert found(directory) == ("some", expected)
    assert not all(path.startswith("val/") for path in expected)
    file.write_text("path,label\nother.png,label 0\n")
    assert found(directory) == ("unknown", None)


@pytest.mark.parametrize("seed", range(8))
def test_if_training_skipped_images_only_items_that_it_surely_held_out_are_known(
    tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    texts = in_class_folders(60)
    skipped = set(random.choice(60, 3, replace=False).tolist())
    held_out = held_out_paths(texts)
    readable = [text for number, text in enumerate(texts) if number not in skipped]
    num_held_out = sum(path in held_out for path, _ in readable)
    data = {
        "name": "photos",
        "num_train": len(readable) - num_held_out,
        "num_held_out": num_held_out,
        "num_skipped": len(skipped),
    }
    trained_on, known = found(write_items(tmp_path / "index", readable, data))
    assert trained_on == "some"
    assert known is not None
    assert len(known) >= 4
    assert known <= held_out


def test_the_facts_are_those_of_the_card_without_the_folder_of_the_data(tmp_path: Path) -> None:
    data = {"name": "/home/me/photos", "num_train": 90, "num_held_out": 9, "init": "abc"}
    _, _, card = open_sample(
        write_items(tmp_path / "index", in_class_folders(), data, classes=("label 1", "cat"))
    )
    facts = training_facts(card, ["label 0", "label 1"])
    assert (facts.data, facts.num_train, facts.init) == ("photos", 90, "abc")
    assert facts.num_shared_labels == 1


def test_after_a_real_training_the_index_of_its_data_is_known(
    tmp_path: Path, own_colour_folder: Path
) -> None:
    (own_colour_folder / "red" / "notes.txt").write_text("not an image")
    data = tmp_path / "photos"
    for file in own_colour_folder.rglob("*.*"):
        part = "train" if file.stem in "0123" else "val"
        (data / part / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, data / part / file.parent.name)
    expected = {
        f"val/{label}/{number}.png" for label in ("blue", "green", "red") for number in "45"
    }
    train(make_request(data, tmp_path / "model", epochs=1))
    build(str(data), tmp_path / "model", tmp_path / "index", device="cpu")
    assert found(tmp_path / "index") == ("some", expected)
