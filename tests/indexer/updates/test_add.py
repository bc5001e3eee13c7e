"""Adding images: new bytes are added, known bytes are left out, and a known path is replaced."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.embedder import Embedder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.conftest import coloured
from tests.indexer.items import items_by_path
from training.data.examples import DataError
from training.data.images import read_square
from training.devices import Precision
from training.errors import UserError


def test_a_folder_is_added_and_an_image_with_the_path_of_an_item_replaces_it(
    own_index: Path, more: Path
) -> None:
    before = items_by_path(own_index)
    report = add(own_index, [str(more)])
    after = items_by_path(own_index)
    assert (report.num_added, report.num_changed, report.num_removed) == (1, 1, 0)
    assert report.num_items == 19
    assert after["red/0.png"].id > max(item.id for item in before.values())
    assert after["red/0.png"].sha256 != before["red/0.png"].sha256
    others = before.keys() - {"red/0.png"}
    assert {path: after[path] for path in others} == {path: before[path] for path in others}
    assert Index.open(own_index).manifest.is_complete
    assert verify(own_index).is_clean


def test_adding_the_same_bytes_again_changes_nothing_wherever_they_lie(
    own_index: Path,
    colour_folder: Path,
    tmp_path: Path,
    num_embedded: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.updates.prepare.RACY_S", 0.0)
    add(own_index, [str(colour_folder)])  # now the files are old enough to get stamps
    manifest = (own_index / "manifest.json").read_bytes()
    shutil.copy(colour_folder / "red" / "3.png", tmp_path / "alone.png")
    for data, prefix in (
        (colour_folder, ""),
        (colour_folder, "again/"),
        (tmp_path / "alone.png", ""),
        (tmp_path / "alone.png", "red/"),
    ):
        report = add(own_index, [str(data)], prefix=prefix)
        assert (report.num_added, report.num_changed, report.num_items) == (0, 0, 18), data
    assert (own_index / "manifest.json").read_bytes() == manifest
    assert num_embedded() == 0


def test_equal_bytes_in_one_addition_become_one_item(own_index: Path, more: Path) -> None:
    shutil.copy(more / "red" / "new.png", more / "red" / "copy.png")
    report = add(own_index, [str(more)], prefix="more/")
    assert (report.num_added, report.num_unchanged) == (2, 1)


def test_another_label_under_the_same_path_replaces_the_item(
    own_index: Path, colour_folder: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "list.csv"
    listing.write_text(f"path,label\n{colour_folder}/red/0.png,crimson\n")
    assert add(own_index, [str(listing)]).num_unchanged == 1  # another path, but known bytes
    (tmp_path / "red").symlink_to(colour_folder / "red")
    listing.write_text("path,label\nred/0.png,crimson\n")
    report = add(own_index, [str(listing)])
    assert (report.num_changed, report.num_items) == (1, 18)
    assert items_by_path(own_index)["red/0.png"].label == "crimson"


def test_an_image_that_became_a_copy_of_another_gets_its_feature(
    own_index: Path, more: Path
) -> None:
    add(own_index, [str(more)])
    first, second = sorted(more.rglob("*.png"))[:2]
    shutil.copyfile(second, first)
    report = add(own_index, [str(more)])
    assert (report.num_changed, report.num_added) == (1, 0)
    opened = Index.open(own_index)
    rows = [int(opened.rows_of_path(str(file.relative_to(more)))[0]) for file in (first, second)]
    np.testing.assert_array_equal(opened.features[rows[0]], opened.features[rows[1]])


def test_a_gpu_for_the_indexs_own_model_is_refused(own_index: Path, more: Path) -> None:
    message = "own copy of the model embeds on the CPU only; pass the --model"
    with pytest.raises(UserError, match=message):
        add(own_index, [str(more)], device="gpu")


def test_an_addition_without_skipped_files_keeps_the_list_of_the_build(
    own_index: Path, more: Path
) -> None:
    (own_index / "skipped.csv").write_text("path,reason\n")
    add(own_index, [str(more)])
    assert (own_index / "skipped.csv").exists()


def test_files_and_csvs_are_added_with_a_prefix(own_index: Path, more: Path) -> None:
    files = [str(more / "red" / "0.png"), str(more / "red" / "new.png")]
    report = add(own_index, files, prefix="2024/")
    assert report.num_added == 2
    assert items_by_path(own_index)["2024/0.png"].label is None
    coloured("blue", 503).save(more / "b.png")
    (more / "list.csv").write_text("path,label\nb.png,navy\n")
    assert add(own_index, [str(more / "list.csv")]).num_added == 1
    assert items_by_path(own_index)["b.png"].label == "navy"


def test_the_same_path_in_two_data_sets_is_refused(
    own_index: Path, more: Path, colour_folder: Path
) -> None:
    message = r"two of these images have the path red/0\.png; .* its own --prefix"
    with pytest.raises(DataError, match=message):
        add(own_index, [str(more), str(colour_folder)])
    assert Index.open(own_index).count() == 18


def test_files_that_are_not_images_are_skipped_and_listed(own_index: Path, more: Path) -> None:
    (more / "red" / "broken.png").write_bytes(b"nothing like an image")
    report = add(own_index, [str(more)])
    assert [skipped.path for skipped in report.skipped] == ["red/broken.png"]
    assert "red/broken.png" in (own_index / "skipped.csv").read_text()
    assert report.num_items == 19


def test_data_without_images_and_another_model_are_refused(
    own_index: Path, more: Path, other_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        add(own_index, [str(tmp_path / "empty")])
    with pytest.raises(IndexDirectoryError, match="was built with model"):
        add(own_index, [str(more)], model_directory=other_model, device="cpu")


def test_a_change_of_what_is_not_an_index_is_refused_and_writes_nothing(
    more: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    changes: tuple[Callable[[Path], object], ...] = (
        lambda directory: add(directory, [str(more)]),
        lambda directory: remove(directory, ids=[1]),
        compact,
    )
    for directory in (tmp_path / "nowhere", tmp_path / "empty"):
        for change in changes:
            with pytest.raises(IndexDirectoryError, match="lookalike index build"):
                change(directory)
    assert list((tmp_path / "empty").iterdir()) == []


def test_any_file_name_can_be_added_and_removed(own_index: Path, tmp_path: Path) -> None:
    names = [
        b"two\nlines.png",
        b"\"quoted\" 'twice'.png",
        b"not utf-8 \xff\xe9.png",
        "\u00e9\u4e2d\U0001f600.png".encode(),
        b"-x;$(rm).png",
    ]
    folder = tmp_path / "names"
    folder.mkdir()
    for number, name in enumerate(names):
        coloured("red", 600 + number).save(tmp_path / "image.png")
        os.rename(tmp_path / "image.png", os.path.join(os.fsencode(folder), name))
    stored = [name.decode("utf-8", "backslashreplace") for name in names]
    assert add(own_index, [str(folder)], prefix=os.fsdecode(b"\xfe/")).num_added == 5
    assert items_by_path(own_index).keys() >= {f"\\xfe/{name}" for name in stored}
    remove(own_index, paths=[f"\\xfe/{name}" for name in stored])
    files = [os.fsdecode(os.path.join(os.fsencode(folder), name)) for name in names]
    assert add(own_index, files).num_added == 5
    assert items_by_path(own_index).keys() >= set(stored)
    assert remove(own_index, paths=[os.fsdecode(name) for name in names]) == 5
    assert verify(own_index).is_clean


def test_links_in_circles_do_no_harm(own_index: Path, more: Path) -> None:
    (more / "red" / "up").symlink_to(more)
    (more / "red" / "self.png").symlink_to(more / "red" / "self.png")
    report = add(own_index, [str(more)])
    assert (report.num_added, report.num_changed) == (1, 1)
    assert [skipped.path for skipped in report.skipped] == ["red/self.png"]


def test_added_images_get_features_in_the_precision_of_the_index(
    colour_folder: Path, int8_model: Path, tmp_path: Path
) -> None:
    image = tmp_path / "new.png"
    coloured("red", 4711).save(image)
    squares = np.stack([read_square(image, 67)])
    precisions: tuple[Precision, ...] = ("float32", "int8")
    for precision in precisions:
        index = tmp_path / precision
        build(str(colour_folder), int8_model, index, device="cpu", precision=precision)
        assert add(index, [str(image)]).num_added == 1
        expected = Embedder(int8_model, precision=precision).embed(squares).features[0]
        added = Index.open(index).features[-1]
        np.testing.assert_allclose(added, expected, atol=1e-4)
