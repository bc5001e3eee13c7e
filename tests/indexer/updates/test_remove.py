"""Removing items: all that are named or none, and nothing of them comes back."""

import json
import os
import shutil
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.conftest import Run
from tests.indexer.items import items_by_path


def test_items_are_removed_by_id_path_and_label(own_index: Path) -> None:
    num_removed = remove(own_index, ids=[1, 1], paths=["blue/0.png", "green/2.png"], labels=["red"])
    assert num_removed == 8  # id 1 is blue/0.png
    left = items_by_path(own_index)
    assert len(left) == 10
    assert {"blue/0.png", "green/2.png"}.isdisjoint(left)
    assert {item.label for item in left.values()} == {"blue", "green"}


@pytest.mark.parametrize("id", [0, -1, 2**70])
def test_if_an_id_is_unknown_nothing_is_removed(own_index: Path, id: int) -> None:
    with pytest.raises(IndexDirectoryError, match=f"has the id {id}, so nothing was removed"):
        remove(own_index, ids=[1, id])
    assert Index.open(own_index).count() == 18


def test_if_a_path_or_a_label_is_unknown_nothing_is_removed(own_index: Path) -> None:
    with pytest.raises(IndexDirectoryError, match=r"path red/99\.png, so nothing was removed"):
        remove(own_index, ids=[1], paths=["red/99.png"])
    with pytest.raises(IndexDirectoryError, match="label purple, so nothing was removed"):
        remove(own_index, ids=[1], labels=["purple"])
    assert Index.open(own_index).count() == 18


def test_everything_can_be_removed_compacted_and_added_again(
    own_index: Path, colour_folder: Path
) -> None:
    assert remove(own_index, labels=["blue", "green", "red"]) == 18
    assert compact(own_index).num_items == 0
    assert Index.open(own_index).items() == []
    assert verify(own_index).is_clean
    assert add(own_index, [str(colour_folder)]).num_added == 18
    assert min(item.id for item in items_by_path(own_index).values()) == 19


def test_a_label_that_is_not_utf_8_is_searched_and_removed_as_it_is_typed(
    run: Run, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    folder, label = tmp_path / "cafe", os.fsdecode(b"caf\xe9")
    shutil.copytree(colour_folder / "red", folder / label)
    shutil.copytree(colour_folder / "blue", folder / "blue")
    index, query = tmp_path / "index", colour_folder / "blue" / "0.png"
    build(str(folder), tiny_model, index, device="cpu")
    status, out, _ = run("search", index, query, "--label", label, "-k", "2", "--json")
    assert status == 0
    labels = [match["label"] for match in json.loads(out)["results"][0]["matches"]]
    assert labels == ["caf\\xe9"] * 2
    assert remove(index, labels=[label]) == 6
