from pathlib import Path

import numpy as np

from benchmarks.mislabelled import measure, plant, share_found, spread
from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import write_collection


def test_planted_labels_are_always_other_labels() -> None:
    labels = np.arange(1000) % 7
    planted, is_planted = plant(labels, 7, seed=1)
    assert is_planted.sum() == 20
    assert np.array_equal(planted != labels, is_planted)
    assert set(planted) == set(range(7))
    assert not np.array_equal(is_planted, plant(labels, 7, seed=2)[1])


def test_only_the_first_four_per_cent_count() -> None:
    is_planted = np.zeros(100, bool)
    is_planted[[1, 5]] = True
    scores = np.zeros(100)
    scores[[0, 1, 2, 3, 5]] = [9, 8, 7, 6, 5]
    assert share_found(scores, is_planted) == 0.5


def test_without_planted_labels_no_share_is_found() -> None:
    assert share_found(np.arange(100.0), np.zeros(100, bool)) is None


def test_seeds_without_a_share_are_left_out_and_counted() -> None:
    assert spread([0.5, 1.0]) == {"mean": 0.75, "min": 0.5, "max": 1.0}
    assert spread([0.5, None, 1.0]) == {"mean": 0.75, "min": 0.5, "max": 1.0, "seeds": 2}
    assert spread([None, None]) is None


def test_a_part_of_the_items_without_a_planted_label_has_no_share(tmp_path: Path) -> None:
    features, labels = clusters(2, 50)  # one label is planted per seed
    paths = [
        f"{'train' if number < 48 else 'val'}/{label}/{number}.png"
        for number, label in enumerate(labels)
    ]
    directory = write_collection(
        tmp_path / "index",
        features,
        labels,
        classes=("label 0", "label 1"),
        data={"name": "photos", "num_train": 48, "num_held_out": 2},
        paths=paths,
    )
    figures = measure(directory, range(2))
    assert figures["trained_on"] == "some"
    assert figures["found_unseen"] is None
    assert figures["found_seen"] == {"mean": 1, "min": 1, "max": 1}


def test_labels_that_are_easy_to_tell_apart_are_all_found_and_the_index_stays_the_same(
    tmp_path: Path,
) -> None:
    features, labels = clusters(3, 150)
    directory = write_collection(tmp_path / "index", features, labels)
    before = {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    figures = measure(directory, range(2))
    assert (figures["items"], figures["planted"], figures["listed"]) == (150, 3, 6)
    assert figures["found"] == {"mean": 1, "min": 1, "max": 1}
    assert {file: file.read_bytes() for file in before} == before
