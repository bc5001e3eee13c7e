"""Changes of single items: what is added, replaced or left out, and one commit for all of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.search.searcher import Searcher
from indexer.storage.growing_files import GrowingFile
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter
from indexer.updates.additions import (
    Added,
    Addition,
    Removal,
    Removed,
    apply_changes,
)
from indexer.updates.verify import verify
from tests.indexer.items import (
    MODEL_ID,
    items_by_path,
    made_up_encoder,
    made_up_features,
    made_up_item,
    make_index,
    stand_in_model,
    write_codes,
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of 0.png to 4.png with the ids 1 to 5. The label is `a` or `b`."""
    model = stand_in_model(tmp_path / "model")
    return make_index(tmp_path / "index", model, made_up_features(5), ["a", "b", "a", "b", "a"])


def item(number: int, path: str | None = None, label: str | None = "new") -> NewItem:
    """An item whose content follows from its number."""
    made_up = made_up_item(number, made_up_features(1, seed=number)[0])
    return replace(made_up, path=path or made_up.path, label=label)


def change(index: Path, *changes: Addition | Removal) -> list[Added | Removed]:
    """Apply changes, and check that the index is healthy, and that one commit has them all."""
    before = read_manifest(index).commit
    results, commit = apply_changes(index, changes, MODEL_ID)
    assert commit == read_manifest(index).commit
    assert commit - before in (0, 1)
    assert not verify(index).damages
    return results


def name_of(index: Path, id: int) -> str | None:
    found = Index.open(index).item(id)
    return found.path if found else None


def test_a_new_image_is_added_and_found(index: Path) -> None:
    new = item(99, "cats/99.png", "cat")
    assert change(index, Addition(new, may_replace=False)) == [
        Added(6, "cats/99.png", "cat", "added")
    ]
    (match,) = Searcher(Index.open(index)).search(new.feature[None], 1)[0]
    assert (match.item.id, match.item.label, match.distance) == (6, "cat", 0)


def test_many_changes_are_one_commit(index: Path) -> None:
    before = read_manifest(index)
    results = change(
        index,
        *(Addition(item(number), may_replace=False) for number in (90, 91, 92)),
        Removal(1),
        Removal(4),
    )
    assert [type(result) for result in results] == [Added] * 3 + [Removed] * 2
    after = read_manifest(index)
    assert (after.commit, after.num_items) == (before.commit + 1, 5 + 3 - 2)


def test_an_item_is_removed_and_a_missing_one_is_not(index: Path) -> None:
    assert change(index, Removal(2), Removal(2), Removal(77)) == [
        Removed(2, was_item=True),
        Removed(2, was_item=False),
        Removed(77, was_item=False),
    ]
    assert sorted(items_by_path(index)) == ["0.png", "2.png", "3.png", "4.png"]


def test_nothing_to_change_makes_no_commit(index: Path) -> None:
    before = read_manifest(index)
    same = item(2, "elsewhere.png")
    assert change(index, Removal(77), Addition(same, may_replace=False)) == [
        Removed(77, was_item=False),
        Added(3, "2.png", "a", "unchanged"),
    ]
    assert read_manifest(index) == before


def test_the_same_bytes_are_left_out_whatever_their_name(index: Path) -> None:
    for path in ("2.png", "1.png", "new.png"):
        for may_replace in (False, True):
            if path == "new.png" or not may_replace:
                result = change(index, Addition(item(2, path, "z"), may_replace=may_replace))
                assert result == [Added(3, "2.png", "a", "unchanged")]


def test_the_path_of_an_item_is_replaced_if_the_path_was_given(index: Path) -> None:
    assert change(index, Addition(item(99, "2.png", "z"), may_replace=True)) == [
        Added(6, "2.png", "z", "replaced")
    ]
    assert name_of(index, 3) is None
    assert items_by_path(index)["2.png"].label == "z"
    assert read_manifest(index).num_items == 5


def test_the_same_bytes_with_another_label_replace_their_item(index: Path) -> None:
    same = item(2, "2.png", "z")
    assert change(index, Addition(same, may_replace=True)) == [Added(6, "2.png", "z", "replaced")]
    assert change(index, Addition(same, may_replace=True)) == [Added(6, "2.png", "z", "unchanged")]


def test_the_bytes_of_one_item_replace_another_whose_path_is_given(index: Path) -> None:
    assert change(index, Addition(item(2, "1.png", "b"), may_replace=True)) == [
        Added(6, "1.png", "b", "replaced")
    ]
    assert name_of(index, 2) is None
    assert name_of(index, 3) == "2.png"


def test_a_name_that_an_item_has_already_gets_the_start_of_the_checksum(index: Path) -> None:
    new = replace(item(99, "photos/2.png"), sha256="0123456789abcdef" * 4)
    names = ["photos/2.png", "photos/2-01234567.png", "photos/2-0123456789abcdef.png"]
    for number, name in enumerate(names):
        other = replace(new, sha256=new.sha256[:-1] + str(number))
        (added,) = change(index, Addition(other, may_replace=False))
        assert isinstance(added, Added)
        assert (added.path, added.outcome) == (name, "added")
    assert read_manifest(index).num_items == 8


@pytest.mark.parametrize("name", ["no suffix", "two.tar.gz", ".hidden", "..", "ü 猫.png"])
def test_every_name_can_become_free(index: Path, name: str) -> None:
    first, second = (Addition(item(number, name), may_replace=False) for number in (90, 91))
    results = change(index, first, second)
    paths = [result.path for result in results if isinstance(result, Added)]
    assert paths[0] == name
    assert len(set(paths)) == 2
    assert read_manifest(index).num_items == 7


def test_later_changes_see_the_earlier_ones(index: Path) -> None:
    new, other = item(90, "x.png"), item(91, "x.png")
    assert change(
        index,
        Addition(new, may_replace=False),
        Addition(new, may_replace=False),
        Addition(other, may_replace=True),
        Removal(6),
        Removal(7),
        Addition(new, may_replace=True),
        Removal(3),
        Addition(item(2, "2.png"), may_replace=False),
    ) == [
        Added(6, "x.png", "new", "added"),
        Added(6, "x.png", "new", "unchanged"),
        Added(7, "x.png", "new", "replaced"),
        Removed(6, was_item=False),
        Removed(7, was_item=True),
        Added(8, "x.png", "new", "added"),
        Removed(3, was_item=True),
        Added(9, "2.png", "new", "added"),
    ]
    assert sorted(items_by_path(index)) == ["0.png", "1.png", "2.png", "3.png", "4.png", "x.png"]


def test_new_items_get_codes_if_the_index_has_an_encoder(index: Path) -> None:
    write_codes(index, made_up_encoder())
    new = item(99)
    change(index, Addition(new, may_replace=False), Removal(1))
    (match,) = Searcher(Index.open(index)).search(new.feature[None], 1, metric="hamming", rerank=0)[
        0
    ]
    assert (match.item.id, match.distance) == (6, 0)


def test_another_model_changes_nothing(index: Path) -> None:
    before = read_manifest(index)
    with pytest.raises(IndexDirectoryError, match="another model"):
        apply_changes(index, [Removal(1)], "1" * 64)
    assert read_manifest(index) == before


def test_an_index_in_use_is_not_changed(index: Path) -> None:
    before = read_manifest(index)
    with (
        IndexWriter.open(index),
        pytest.raises(IndexDirectoryError, match="being changed by another process"),
    ):
        apply_changes(index, [Removal(1)], MODEL_ID)
    assert read_manifest(index) == before


def directory_bytes(index: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(index)): file.read_bytes()
        for file in sorted(index.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize(
    ("method", "num_good"),
    [*(("append", number) for number in range(9)), *(("sync", number) for number in range(5))],
)
def test_an_error_while_writing_leaves_every_file_as_it_was(
    index: Path, monkeypatch: pytest.MonkeyPatch, method: str, num_good: int
) -> None:
    change(index, Removal(5))
    before = directory_bytes(index)
    calls: list[None] = []
    original = getattr(GrowingFile, method)

    def fail(file: GrowingFile, *arguments: bytes) -> object:
        calls.append(None)
        if len(calls) > num_good:
            raise OSError(28, "No space left on device")
        return original(file, *arguments)

    changes: Sequence[Addition | Removal] = [
        *(Addition(item(number), may_replace=False) for number in (90, 91)),
        Removal(1),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, method, fail)
        with pytest.raises(OSError, match="No space left"):
            apply_changes(index, changes, MODEL_ID)
    assert directory_bytes(index) == before
    assert len(change(index, *changes)) == 3
    np.testing.assert_array_equal(Index.open(index).ids, [2, 3, 4, 6, 7])
