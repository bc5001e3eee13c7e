from pathlib import Path

import numpy as np
import pytest

from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import open_sample, write_collection


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


def test_the_sample_says_which_of_its_items_training_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.collection.sample.MAX_ITEMS", 14)
    features, labels = clusters(2, 20)
    paths = [
        f"{'val' if number > 12 else 'train'}/{label}/{number}.png"
        for number, label in enumerate(labels)
    ]
    directory = write_collection(
        tmp_path / "index",
        features,
        labels,
        classes=("label 0", "label 1"),
        data={"name": "photos", "num_train": 13, "num_held_out": 7},
        paths=paths,
    )
    _, sample, _ = open_sample(directory)
    assert (len(sample.rows), sample.trained_on) == (14, "some")
    assert sample.is_held_out is not None
    assert sample.is_held_out.any()
    assert sample.is_held_out.tolist() == [row > 12 for row in sample.rows]


def test_an_index_without_labels_gives_an_empty_sample(tmp_path: Path) -> None:
    directory = write_collection(tmp_path / "index", clusters(2, 4)[0], [None] * 4)
    _, sample, _ = open_sample(directory)
    assert (sample.names, len(sample.rows), sample.num_labelled) == ((), 0, 0)
