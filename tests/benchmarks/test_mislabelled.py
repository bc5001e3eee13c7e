from pathlib import Path

import numpy as np

from benchmarks.mislabelled import measure, plant, share_found
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
