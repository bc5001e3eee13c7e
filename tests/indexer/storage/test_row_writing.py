"""Rows as they are appended: a record that describes the item, and intact copies only."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.growing_files import GrowingFile, new_files, open_files
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, Manifest, read_manifest
from indexer.storage.records import find_damage
from indexer.storage.row_writing import NewItem, append_copies, append_item
from tests.indexer.damage import flip
from tests.indexer.items import made_up_features


def written(files: dict[str, GrowingFile], directory: Path, num_rows: int) -> Index:
    """An index of the rows that were appended to these files."""
    manifest = Manifest(
        model_id="",
        num_items=num_rows,
        num_rows=num_rows,
        next_id=100,
        files={kind: file.sync() for kind, file in files.items()},
        created_at="",
        updated_at="",
    )
    for file in files.values():
        file.close()
    return Index(directory, manifest)


def test_an_appended_item_is_read_back_with_intact_checksums(tmp_path: Path) -> None:
    features = made_up_features(2)
    item = NewItem(
        path="caf\u00e9/1.png",
        label="caf\u00e9",
        sha256="0f" * 32,
        width=640,
        height=480,
        thumbnail=b"\xff\xd8 a thumbnail",
        feature=features[0],
        stamp=2**64 - 1,
    )
    files = open_files(tmp_path, new_files(0))
    append_item(files, item, 7)
    append_item(files, replace(item, path="2.png", label=None, feature=features[1]), 9)
    index = written(files, tmp_path, 2)
    first, second = index.items()
    assert (first.id, first.path, first.label) == (7, "caf\u00e9/1.png", "caf\u00e9")
    assert (first.sha256, first.width, first.height) == ("0f" * 32, 640, 480)
    assert (second.id, second.path, second.label) == (9, "2.png", None)
    assert index.thumbnail(7) == b"\xff\xd8 a thumbnail"
    assert index.records["stamp"].tolist() == [2**64 - 1, 2**64 - 1]
    np.testing.assert_array_equal(index.features, features)
    np.testing.assert_allclose(
        index.records["norm"], np.linalg.norm(features.astype(np.float64), axis=1), rtol=1e-6
    )
    assert not any(find_damage(index.records[row], index.item_bytes(row)) for row in (0, 1))


def test_an_empty_label_is_not_the_same_as_no_label(tmp_path: Path) -> None:
    item = NewItem(
        path="a.png",
        label="",
        sha256="00" * 32,
        width=1,
        height=1,
        thumbnail=b"",
        feature=made_up_features(1)[0],
    )
    files = open_files(tmp_path, new_files(0))
    append_item(files, item, 1)
    append_item(files, replace(item, label=None), 2)
    assert [item.label for item in written(files, tmp_path, 2).items()] == ["", None]


def test_copies_of_rows_keep_everything_but_their_positions(index: Path, tmp_path: Path) -> None:
    earlier, rows = Index.open(index), np.array([3, 17])
    (tmp_path / "copy").mkdir()
    files = open_files(tmp_path / "copy", new_files(1))
    append_copies(files, earlier, rows)
    later = written(files, tmp_path / "copy", 2)
    assert later.items() == [earlier.items()[row] for row in rows]
    assert [later.item_bytes(row) for row in (0, 1)] == [earlier.item_bytes(row) for row in rows]
    assert later.records["text_at"].tolist() != earlier.records["text_at"][rows].tolist()
    assert not any(find_damage(later.records[row], later.item_bytes(row)) for row in (0, 1))


def test_a_damaged_row_is_not_copied(index: Path, tmp_path: Path) -> None:
    flip(index / read_manifest(index).files["features"].file, 3 * 4 * 4096)
    (tmp_path / "copy").mkdir()
    files = open_files(tmp_path / "copy", new_files(1))
    with pytest.raises(
        IndexDirectoryError,
        match=r"the feature of item 4 in .* is damaged, so nothing was changed; "
        r"to see what is damaged, run: lookalike index verify",
    ):
        append_copies(files, Index.open(index), np.array([2, 3]))
    written(files, tmp_path / "copy", 1)
