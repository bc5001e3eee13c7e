"""Preparing examples: what is read, what is decoded, and what needs the network again."""

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.index import Index
from indexer.storage.row_writing import NewItem
from indexer.storage.stamps import read_stamps
from indexer.updates.build import build
from indexer.updates.prepare import (
    RACY_S,
    Decoded,
    Preparation,
    Unchanged,
    decode,
    file_stamp,
    find_repeated_path,
)
from tests.conftest import coloured
from tests.indexer.damage import flip
from training.data.examples import Example
from training.data.images import ImageError, TarMember
from training.data.skipped import Skipped

SIZE = 67


def preparation(directory: Path, *, keeps_copies: bool = False) -> Preparation:
    index = Index.open(directory)
    return Preparation(index, read_stamps(index), SIZE, keeps_copies=keeps_copies)


@pytest.fixture
def red(colour_folder: Path) -> Example:
    """An example that `tiny_index` has as an item."""
    return Example("red/0.png", "red", colour_folder / "red" / "0.png")


def test_a_new_image_is_decoded(tiny_index: Path, tmp_path: Path) -> None:
    coloured("red", 501).save(tmp_path / "new.png")
    decoded = preparation(tiny_index).prepare(Example("new.png", "red", tmp_path / "new.png"))
    assert isinstance(decoded, Decoded)
    assert decoded.square.shape == (SIZE, SIZE, 3)
    assert decoded.square.dtype == np.uint8
    assert (decoded.width, decoded.height) == (96, 80)
    item = decoded.with_feature(np.ones(4096, np.float32))
    assert (item.path, item.label, item.sha256) == ("new.png", "red", decoded.sha256)
    assert item.thumbnail.startswith(b"\xff\xd8\xff")


def test_bytes_are_decoded_within_a_limit_of_pixels() -> None:
    file = io.BytesIO()
    coloured("red", 501).save(file, "PNG")
    example = Example("new.png", None, file.getvalue())
    decoded = decode(file.getvalue(), example, "0" * 64, image_size=SIZE, max_pixels=96 * 80)
    assert decoded.square.shape == (SIZE, SIZE, 3)
    with pytest.raises(ImageError, match="96 x 80"):
        decode(file.getvalue(), example, "0" * 64, image_size=SIZE, max_pixels=96 * 80 - 1)


def test_known_bytes_under_their_own_path_and_label_are_unchanged(
    tiny_index: Path, red: Example
) -> None:
    index = Index.open(tiny_index)
    no_stamps = np.zeros(len(index.records), np.uint64)
    outcome = Preparation(index, no_stamps, SIZE, keeps_copies=False).prepare(red)
    assert isinstance(outcome, Unchanged)
    assert outcome.id == index.ids[index.rows_of_path("red/0.png")[0]]


def test_a_file_that_was_not_touched_is_not_read(
    tiny_index: Path, red: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> bytes:
        raise AssertionError("the file was read")

    monkeypatch.setattr("indexer.updates.prepare.RACY_S", 0.0)
    monkeypatch.setattr("indexer.updates.prepare.read_bytes", refuse)
    index = Index.open(tiny_index)
    stamps = np.full(len(index.records), file_stamp(red), np.uint64)
    untouched = Preparation(index, stamps, SIZE, keeps_copies=False)
    assert untouched.prepare(red) == Unchanged()
    with pytest.raises(AssertionError, match="the file was read"):
        untouched.prepare(replace(red, label="crimson"))


def test_known_bytes_under_another_path_are_a_copy_that_only_a_build_keeps(
    tiny_index: Path, red: Example
) -> None:
    copy = replace(red, path="red/copy.png")
    assert preparation(tiny_index, keeps_copies=False).prepare(copy) == Unchanged()
    item = preparation(tiny_index, keeps_copies=True).prepare(copy)
    assert isinstance(item, NewItem)
    index = Index.open(tiny_index)
    (row,) = index.rows_of_path("red/0.png")
    np.testing.assert_array_equal(item.feature, index.features[row])
    assert (item.path, item.thumbnail) == ("red/copy.png", index.item_bytes(row).thumbnail)


def test_known_bytes_of_a_damaged_item_are_decoded_again(own_index: Path, red: Example) -> None:
    (row,) = Index.open(own_index).rows_of_path("red/0.png")
    flip(own_index / "features-0.f32", int(row) * 4 * 4096)
    outcome = preparation(own_index, keeps_copies=True).prepare(replace(red, path="copy.png"))
    assert isinstance(outcome, Decoded)


def test_another_label_for_known_bytes_makes_a_new_item_without_the_network(
    tiny_index: Path, red: Example
) -> None:
    item = preparation(tiny_index).prepare(replace(red, label="crimson"))
    assert isinstance(item, NewItem)
    assert (item.path, item.label) == ("red/0.png", "crimson")


def test_a_file_that_is_not_an_image_or_vanished_is_skipped_with_the_reason(
    tiny_index: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.png").write_bytes(b"nothing like an image")
    outcome = preparation(tiny_index).prepare(Example("notes.png", None, tmp_path / "notes.png"))
    assert isinstance(outcome, Skipped)
    assert "not an image" in outcome.reason
    outcome = preparation(tiny_index).prepare(Example("gone.png", None, tmp_path / "gone.png"))
    assert isinstance(outcome, Skipped)
    assert "cannot be read: No such file" in outcome.reason


def test_the_first_repeated_path_is_named() -> None:
    examples = [Example(path, None, b"") for path in ("a", "b", "c", "b", "a")]
    assert find_repeated_path(examples) == "b"
    assert find_repeated_path(examples[:3]) is None
    assert find_repeated_path([]) is None


def test_a_stamp_changes_with_size_times_and_place_in_a_tar_file(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def stamp() -> int:
        return file_stamp(Example("file", None, file))

    file.write_bytes(b"one")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("indexer.updates.prepare.RACY_S", 0.0)
        first = stamp()
        assert first == stamp() != 0
        os.utime(file, (1e9, 1e9))
        assert stamp() not in (0, first)
        members = [TarMember(file, offset, 1) for offset in (512, 1024)]
        stamps = {file_stamp(Example("file", None, member)) for member in members}
        assert len(stamps | {stamp()}) == 3


def test_there_is_no_stamp_for_bytes_missing_files_or_files_that_just_changed(
    tmp_path: Path,
) -> None:
    assert file_stamp(Example("bytes", None, b"content")) == 0
    assert file_stamp(Example("gone", None, tmp_path / "gone")) == 0
    later = time.time() + 3600  # so that the test does not race the clock
    (tmp_path / "new").write_bytes(b"new")
    os.utime(tmp_path / "new", (later, later))
    assert file_stamp(Example("new", None, tmp_path / "new")) == 0


def test_a_renamed_file_is_not_embedded_again(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, num_embedded: Callable[[], int]
) -> None:
    index = tmp_path / "index"
    build(str(own_colour_folder), tiny_model, index, device="cpu")
    before = Index.open(index)
    (own_colour_folder / "red" / "0.png").rename(own_colour_folder / "red" / "renamed.png")
    report = build(str(own_colour_folder), tiny_model, index, device="cpu")
    assert (report.num_added, report.num_removed, num_embedded()) == (1, 1, 18)
    after = Index.open(index)
    np.testing.assert_array_equal(
        after.features[after.rows_of_path("red/renamed.png")],
        before.features[before.rows_of_path("red/0.png")],
    )


def test_only_a_file_whose_bytes_changed_is_embedded_again(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, num_embedded: Callable[[], int]
) -> None:
    def build_again() -> int:
        return build(str(own_colour_folder), tiny_model, index, device="cpu").num_changed

    index, file = tmp_path / "index", own_colour_folder / "red" / "0.png"
    for image in own_colour_folder.rglob("*"):
        os.utime(image, (1e9, 1e9))
    time.sleep(RACY_S + 0.1)  # the time of the last change of the inode cannot be set
    build_again()
    assert (Index.open(index).records["stamp"] != 0).all()
    os.utime(file)
    assert (build_again(), num_embedded()) == (0, 18)
    # A file of the same size whose times are set back: only the inode's own time has changed.
    coloured("blue", 1).save(file, "BMP")
    build_again()
    coloured("green", 1).save(file, "BMP")
    os.utime(file, (1e9, 1e9))
    assert build_again() == 1
    coloured("red", 1).save(file, "BMP")
    os.utime(file, (1e9, 1e9))
    assert build_again() == 1
    assert num_embedded() == 21
