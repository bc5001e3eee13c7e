from pathlib import Path

import numpy as np
import pytest

from indexer.reports.collection.sample import classes_are_labels
from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import open_sample, write_collection
from training.data.datasets import split
from training.data.examples import Example

CLASSES = ("label 0", "label 1")


def test_each_image_is_taken_once_and_unlabelled_items_are_left_out(tmp_path: Path) -> None:
    features, labels = clusters(2, 6)
    contents = [0, 1, 0, 3, 4, 0]
    mixed = [*labels[:4], None, labels[5]]
    _, sample, _ = open_sample(
        write_collection(tmp_path / "index", features, mixed, contents=contents)
    )
    assert sample.rows.tolist() == [0, 1, 3]
    assert (sample.num_labelled, sample.num_copies) == (5, 2)
    assert [sample.names[label] for label in sample.labels] == ["label 0", "label 1", "label 1"]
    assert np.array_equal(sample.features, features[[0, 1, 3]])


def test_the_same_bytes_with_other_labels_are_a_conflict(tmp_path: Path) -> None:
    features, labels = clusters(2, 6)
    contents = [0, 1, 0, 3, 4, 0]  # items 0, 2 and 5 have the same bytes
    directory = write_collection(tmp_path / "index", features, labels, contents=contents)
    _, sample, _ = open_sample(directory)
    assert sample.conflicts == ((0, 2, 5),)


def test_a_large_index_is_sampled_with_some_of_each_label_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.collection.sample.MAX_ITEMS", 20)
    directory = write_collection(tmp_path / "index", *clusters(3))
    samples = [open_sample(directory)[1] for _ in range(2)]
    assert np.bincount(samples[0].labels).tolist() == [7, 7, 6]
    assert np.array_equal(samples[0].rows, samples[1].rows)


def test_of_too_many_labels_the_most_frequent_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.collection.sample.MAX_LABELS", 2)
    features, labels = clusters(3, 30)
    labels[0] = "rare"
    _, sample, _ = open_sample(write_collection(tmp_path / "index", features, labels))
    assert sample.names == ("label 1", "label 2")
    assert sample.num_labels_left_out == 2
    assert len(sample.rows) == 20


def test_a_network_with_other_classes_saw_none_of_the_items(tmp_path: Path) -> None:
    _, sample, card = open_sample(write_collection(tmp_path / "index", *clusters(2, 10)))
    assert sample.trained_on == "none"
    assert not classes_are_labels(card, sample.names)


def test_the_items_that_training_held_out_are_unseen(tmp_path: Path) -> None:
    features, labels = clusters(2, 20)
    data = {"num_train": 16, "num_held_out": 4}
    directory = write_collection(tmp_path / "index", features, labels, classes=CLASSES, data=data)
    index, sample, _ = open_sample(directory)
    assert sample.trained_on == "some"
    assert sample.is_unseen is not None
    unseen = {index.text(row)[0] for row in sample.rows[sample.is_unseen]}
    _, held_out = split(Example(f"{n:03}.png", label, b"") for n, label in enumerate(labels))
    assert unseen == {example.path for example in held_out}


def test_a_folder_of_held_out_images_is_unseen_except_copies_of_training_images(
    tmp_path: Path,
) -> None:
    features, labels = clusters(2, 10)
    paths = [f"{'val' if number > 6 else 'train'}/{number}.png" for number in range(10)]
    directory = write_collection(
        tmp_path / "index",
        features,
        labels,
        classes=CLASSES,
        data={"num_train": 7, "num_held_out": 3},
        paths=paths,
        contents=[*range(9), 1],  # item 9 has the bytes of item 1
    )
    _, sample, _ = open_sample(directory)
    assert sample.is_unseen is not None
    assert sample.rows[sample.is_unseen].tolist() == [7, 8]


@pytest.mark.parametrize(
    "data", [{}, {"num_train": 90, "num_held_out": 20}, {"num_train": 16, "validation": "other"}]
)
def test_if_the_numbers_do_not_fit_it_is_unknown_what_the_network_saw(
    tmp_path: Path, data: dict[str, object]
) -> None:
    features, labels = clusters(2, 20)
    directory = write_collection(tmp_path / "index", features, labels, classes=CLASSES, data=data)
    _, sample, _ = open_sample(directory)
    assert (sample.is_unseen, sample.trained_on) == (None, "unknown")


def test_an_index_without_labels_gives_an_empty_sample(tmp_path: Path) -> None:
    directory = write_collection(tmp_path / "index", clusters(2, 4)[0], [None] * 4)
    _, sample, _ = open_sample(directory)
    assert (sample.names, len(sample.rows), sample.num_labelled) == ((), 0, 0)
