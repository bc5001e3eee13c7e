"""Subsets of a data set, and results that are kept for the next call."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from benchmarks.subsets import choose, kept_or_measured, read_splits, result_file
from training.learning.plan import Split
from training.learning.recipe import modern


def test_a_subset_has_the_same_few_images_of_each_class() -> None:
    targets = torch.tensor([0] * 10 + [1] * 3 + [2] * 10)
    canvases = np.arange(23, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    subset = choose(Split(canvases, targets), 5)
    assert torch.bincount(subset.targets).tolist() == [5, 3, 5]
    positions = subset.canvases[:, 0, 0, 0].tolist()
    assert torch.equal(targets[positions], subset.targets)
    again = choose(Split(canvases, targets), 5)
    assert again.canvases[:, 0, 0, 0].tolist() == positions
    # A smaller subset is a part of a larger one.
    smaller = choose(Split(canvases, targets), 2).canvases[:, 0, 0, 0].tolist()
    assert set(smaller) < set(positions)


def test_a_result_is_measured_once_and_not_while_another_process_measures_it(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"top1": 0.5}

    file = tmp_path / "result.json"
    assert kept_or_measured(file, measure, is_over=True) is None
    with FileLock(file.with_suffix(".lock")):
        assert kept_or_measured(file, measure, is_over=False) is None
    for is_over in (False, True):
        assert kept_or_measured(file, measure, is_over=is_over) == {"top1": 0.5}
    assert calls == [1]


def test_a_folder_is_split_as_training_splits_it_or_judged_on_other_data(
    colour_folder: Path, tmp_path: Path
) -> None:
    train, held_out, names = read_splits(str(colour_folder), 67, tmp_path)
    assert (len(train.targets), len(held_out.targets)) == (15, 3)
    assert names == ("blue", "green", "red")
    whole, other, _ = read_splits(str(colour_folder), 67, tmp_path / "val", str(colour_folder))
    assert (len(whole.targets), len(other.targets)) == (18, 18)


def test_the_file_of_a_result_depends_on_the_images_the_recipe_and_the_initial_model(
    tmp_path: Path,
) -> None:
    canvases = np.zeros((2, 3, 3, 3), np.uint8)
    train = Split(canvases, torch.tensor([0, 1]))
    files = {
        result_file(tmp_path, train, modern()),
        result_file(tmp_path, train, modern(), "1234"),
        result_file(tmp_path, train, replace(modern(), epochs=3)),
        result_file(tmp_path, Split(canvases + 1, train.targets), modern()),
        result_file(tmp_path, Split(canvases, torch.tensor([1, 0])), modern()),
    }
    assert len(files) == 5
    assert result_file(tmp_path, train, modern()) in files
