import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.duplicates import (
    CHANGES,
    measure_groups,
    measure_pairs,
    rates,
    score_groups,
    write_copies,
)
from indexer.storage.index import Index, Item
from indexer.updates.build import build


def item(id: int, path: str) -> Item:
    return Item(id=id, path=path, label=None, sha256="", width=1, height=1, added_at="")


ORIGINAL_0, COPY_0, CROP_0 = (
    item(number, f"a/0/{kind}.jpg")
    for number, kind in enumerate(("original", "resized", "cropped"))
)
ORIGINAL_1 = item(9, "a/1/original.jpg")


def test_rates_at_a_threshold() -> None:
    figures = rates([0.9, 0.85, 0.5], [0.85, 0.1], 0.85)
    assert figures == {"recall": 0.6667, "precision": 0.6667, "mistakes": 1}


def test_precision_without_any_match_is_not_a_division_by_zero() -> None:
    assert rates([0.1], [0.1], 0.85) == {"recall": 0, "precision": 0, "mistakes": 0}


def test_a_copy_counts_only_in_a_group_with_its_original() -> None:
    assert score_groups([[ORIGINAL_0, COPY_0, CROP_0]], num_copies=2)["recall"] == 1
    assert score_groups([[COPY_0, CROP_0]], num_copies=2)["recall"] == 0
    assert score_groups([[ORIGINAL_1, COPY_0]], num_copies=2)["recall"] == 0


def test_a_group_of_two_pictures_is_not_pure() -> None:
    groups = [[ORIGINAL_0, COPY_0], [ORIGINAL_1, CROP_0]]
    assert score_groups(groups, num_copies=2) == {"recall": 0.5, "groups_of_one_picture": 0.5}
    assert score_groups([], num_copies=2)["groups_of_one_picture"] == 1


def test_copies_of_photographs_are_found(
    tmp_path: Path, tiny_model: Path, photograph_folder: Path
) -> None:
    folder, directory = tmp_path / "images", tmp_path / "index"
    write_copies(str(photograph_folder), folder / "0", 2, random.Random(0))
    build(str(folder), tiny_model, directory, device="cpu")
    index = Index.open(directory)
    pairs, groups = measure_pairs(index), measure_groups(index)
    assert pairs["pairs_same"] == 2 * len(CHANGES)
    assert groups["num_items"] == len(list(photograph_folder.rglob("*.png"))) + 2 * len(CHANGES)
    assert pairs["by_threshold"]["0.85"]["recall"] >= 0.9
    assert groups["recall"] >= 0.9
    assert groups["groups_of_one_picture"] == 1


@pytest.fixture
def photograph_folder(tmp_path: Path) -> Path:
    """Four pictures with detail of all sizes, as photographs have it."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
    return folder
