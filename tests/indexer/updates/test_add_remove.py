import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.embedder import Embedder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from indexer.updates import build as batch
from indexer.updates.build import add, build, remove
from indexer.updates.compact import compact
from indexer.updates.verify import verify
from tests.conftest import Run, coloured
from tests.indexer.items import made_up_item
from training.data.examples import DataError, Example
from training.errors import UserError


@pytest.fixture
def index(tiny_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_index, tmp_path / "index"))


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A folder of two new images of red, of which one has the name of an indexed one."""
    (tmp_path / "more" / "red").mkdir(parents=True)
    coloured("red", 501).save(tmp_path / "more" / "red" / "0.png")
    coloured("red", 502).save(tmp_path / "more" / "red" / "new.png")
    return tmp_path / "more"


@pytest.fixture
def num_embedded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Tells how many images the network has been given."""
    counts: list[int] = []
    embed = Embedder.embed

    def counting(embedder: Embedder, squares: np.ndarray) -> object:
        counts.append(len(squares))
        return embed(embedder, squares)

    monkeypatch.setattr(Embedder, "embed", counting)
    return lambda: sum(counts)


def by_path(directory: Path) -> dict[str, tuple[int, str | None, str]]:
    return {
        item.path: (item.id, item.label, item.sha256)
        for item in Index.open(directory).items(limit=10_000)
    }


def age(folder: Path) -> None:
    """Makes files look as if they had not been touched lately, so that their times can tell."""
    for file in folder.rglob("*"):
        os.utime(file, (1e9, 1e9))
    time.sleep(batch.RACY_S + 0.1)  # the time of the last change of the inode cannot be set


def test_a_folder_is_added_and_the_path_of_another_takes_its_place(index: Path, more: Path) -> None:
    before = by_path(index)
    report = add(index, [str(more)])
    after = by_path(index)
    assert (report.num_added, report.num_changed, report.num_removed, report.num_items) == (
        1,
        1,
        0,
        19,
    )
    assert after["red/0.png"][0] > max(id for id, _, _ in before.values())
    assert after["red/0.png"][2] != before["red/0.png"][2]
    assert {path: after[path] for path in before if path != "red/0.png"} == {
        path: before[path] for path in before if path != "red/0.png"
    }
    assert Index.open(index).manifest.is_complete
    assert verify(index).is_clean


def test_adding_the_same_bytes_again_changes_nothing_wherever_they_lie(
    index: Path,
    colour_folder: Path,
    tmp_path: Path,
    num_embedded: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "RACY_S", 0.0)
    add(index, [str(colour_folder)])  # which were too new for a stamp when they were indexed
    manifest = (index / "manifest.json").read_bytes()
    shutil.copy(colour_folder / "red" / "3.png", tmp_path / "alone.png")
    for data, prefix in (
        (colour_folder, ""),
        (colour_folder, "again/"),
        (tmp_path / "alone.png", ""),
        (tmp_path / "alone.png", "red/"),
    ):
        report = add(index, [str(data)], prefix=prefix)
        assert (report.num_added, report.num_changed, report.num_items) == (0, 0, 18), (
            data,
            prefix,
        )
    assert (index / "manifest.json").read_bytes() == manifest
    assert num_embedded() == 0


def test_bytes_that_are_added_twice_at_once_are_one_item(index: Path, more: Path) -> None:
    shutil.copy(more / "red" / "new.png", more / "red" / "twin.png")
    report = add(index, [str(more)], prefix="more/")
    assert (report.num_added, report.num_unchanged) == (2, 1)


def test_another_label_under_the_same_path_takes_the_place_of_the_first(
    index: Path, colour_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{colour_folder}/red/0.png,crimson\n")
    assert (
        add(index, [str(tmp_path / "list.csv")]).num_unchanged == 1
    )  # its path there is another, and the bytes are known
    (tmp_path / "red").symlink_to(colour_folder / "red")
    (tmp_path / "list.csv").write_text("path,label\nred/0.png,crimson\n")
    report = add(index, [str(tmp_path / "list.csv")])
    assert (report.num_changed, report.num_items) == (1, 18)
    assert by_path(index)["red/0.png"][1] == "crimson"


def test_an_image_that_became_a_copy_of_another_has_that_ones_feature(
    index: Path, more: Path
) -> None:
    add(index, [str(more)])
    first, second = sorted(more.rglob("*.png"))[:2]
    shutil.copyfile(second, first)
    report = add(index, [str(more)])
    assert (report.num_changed, report.num_added) == (1, 0)
    opened = Index.open(index)
    rows = [int(opened.rows_of_path(str(file.relative_to(more)))[0]) for file in (first, second)]
    np.testing.assert_array_equal(opened.features[rows[0]], opened.features[rows[1]])


def test_a_gpu_for_the_indexs_own_model_is_refused_and_an_addition_keeps_the_builds_report(
    index: Path, more: Path
) -> None:
    with pytest.raises(
        UserError, match="own copy of the model embeds on the CPU only; pass the --model"
    ):
        add(index, [str(more)], device="gpu")
    (index / "skipped.csv").write_text("path,reason\n")
    add(index, [str(more)])
    assert (index / "skipped.csv").exists()


def test_files_and_csvs_are_added_with_a_prefix(index: Path, more: Path) -> None:
    report = add(
        index, [str(more / "red" / "0.png"), str(more / "red" / "new.png")], prefix="2024/"
    )
    assert (report.num_added, by_path(index)["2024/0.png"][1]) == (2, None)
    coloured("blue", 503).save(more / "b.png")
    (more / "list.csv").write_text("path,label\nb.png,navy\n")
    assert add(index, [str(more / "list.csv")]).num_added == 1
    assert by_path(index)["b.png"][1] == "navy"


def test_two_data_with_the_same_path_are_refused(
    index: Path, more: Path, colour_folder: Path
) -> None:
    with pytest.raises(
        DataError, match=r"red/0\.png is the path of two of these images; .* its own --prefix"
    ):
        add(index, [str(more), str(colour_folder)])
    assert Index.open(index).count() == 18


def test_what_cannot_be_read_is_skipped_and_listed(index: Path, more: Path) -> None:
    (more / "red" / "broken.png").write_bytes(b"nothing like an image")
    report = add(index, [str(more)])
    assert [skipped.path for skipped in report.skipped] == ["red/broken.png"]
    assert "red/broken.png" in (index / "skipped.csv").read_text()
    assert report.num_items == 19


def test_no_images_no_index_and_another_model_are_refused(
    index: Path, more: Path, other_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        add(index, [str(tmp_path / "empty")])
    with pytest.raises(IndexDirectoryError, match="was built with model"):
        add(index, [str(more)], model_directory=other_model, device="cpu")
    for directory in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            add(directory, [str(more)])
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            remove(directory, ids=[1])
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            compact(directory)
    assert list((tmp_path / "empty").iterdir()) == []


def test_items_are_removed_by_id_path_and_label(index: Path) -> None:
    assert remove(index, ids=[1, 1], paths=["blue/0.png", "green/2.png"], labels=["red"]) == 8
    left = by_path(index)
    assert len(left) == 10
    assert {"blue/0.png", "green/2.png"}.isdisjoint(left)
    assert {label for _, label, _ in left.values()} == {"blue", "green"}


@pytest.mark.parametrize(
    "unknown",
    [
        {"ids": [0]},
        {"ids": [-1]},
        {"ids": [2**70]},
        {"paths": ["red/99.png"]},
        {"labels": ["purple"]},
    ],
)
def test_where_one_is_unknown_nothing_is_removed(
    index: Path, unknown: dict[str, list[str]]
) -> None:
    wanted = {
        "ids": [1, *unknown.get("ids", [])],
        **{name: values for name, values in unknown.items() if name != "ids"},
    }
    with pytest.raises(IndexDirectoryError, match="so nothing was removed"):
        remove(index, **wanted)  # type: ignore[arg-type]
    assert Index.open(index).count() == 18


def test_everything_can_be_removed_compacted_and_added_again(
    index: Path, colour_folder: Path
) -> None:
    assert remove(index, labels=["blue", "green", "red"]) == 18
    assert compact(index).num_items == 0
    assert (Index.open(index).items(), verify(index).is_clean) == ([], True)
    assert add(index, [str(colour_folder)]).num_added == 18
    assert min(id for id, _, _ in by_path(index).values()) == 19


def test_compacting_waits_for_a_worthwhile_share(index: Path) -> None:
    remove(index, ids=[1, 2, 3])
    assert (compact(index).num_freed_bytes, Index.open(index).manifest.generation) == (0, 0)
    remove(index, ids=[4])
    assert compact(index).num_freed_bytes > 4 * 4 * 4096
    assert (compact(index, force=True).num_removed, Index.open(index).manifest.generation) == (0, 1)
    remove(index, ids=[5])
    assert compact(index, force=True).num_freed_bytes > 4 * 4096


def test_after_a_compaction_ids_stay_bytes_are_gone_and_readers_keep_their_commit(
    index: Path,
) -> None:
    before, earlier = by_path(index), Index.open(index)
    gone = earlier.parts(earlier.rows_of_path("red/1.png")[0])
    remove(index, paths=["red/1.png"])
    compact(index, force=True)
    assert by_path(index) == {path: told for path, told in before.items() if path != "red/1.png"}
    on_disk = b"".join(file.read_bytes() for file in index.iterdir() if file.is_file())
    assert all(part not in on_disk for part in (gone.feature, gone.thumbnail, b"red/1.png"))
    assert len({item.path for item in earlier.items()}) == 18
    assert earlier.parts(earlier.rows_of_path("red/1.png")[0]) == gone
    assert verify(index).is_clean


def test_a_renamed_file_is_not_embedded_again(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, num_embedded: Callable[[], int]
) -> None:
    index = tmp_path / "index"
    build(str(own_colour_folder), tiny_model, index, device="cpu")
    feature = Index.open(index).features[Index.open(index).rows_of_path("red/0.png")]
    (own_colour_folder / "red" / "0.png").rename(own_colour_folder / "red" / "renamed.png")
    report = build(str(own_colour_folder), tiny_model, index, device="cpu")
    assert (report.num_added, report.num_removed, num_embedded()) == (1, 1, 18)
    np.testing.assert_array_equal(
        Index.open(index).features[Index.open(index).rows_of_path("red/renamed.png")], feature
    )


def test_only_a_file_whose_bytes_changed_is_embedded_again(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, num_embedded: Callable[[], int]
) -> None:
    index, file = tmp_path / "index", own_colour_folder / "red" / "0.png"
    age(own_colour_folder)
    build(str(own_colour_folder), tiny_model, index, device="cpu")
    assert (Index.open(index).records["stamp"] != 0).all()
    os.utime(file)
    assert build(str(own_colour_folder), tiny_model, index, device="cpu").num_unchanged == 18
    assert num_embedded() == 18
    # The same size, and the times set back: only the inode's own time tells.
    coloured("blue", 1).save(file, "BMP")
    build(str(own_colour_folder), tiny_model, index, device="cpu")
    coloured("green", 1).save(file, "BMP")
    os.utime(file, (1e9, 1e9))
    assert build(str(own_colour_folder), tiny_model, index, device="cpu").num_changed == 1
    coloured("red", 1).save(file, "BMP")
    os.utime(file, (1e9, 1e9))
    assert build(str(own_colour_folder), tiny_model, index, device="cpu").num_changed == 1
    assert num_embedded() == 21


def test_readers_beside_a_busy_writer_see_whole_commits_only(index: Path) -> None:
    """A hundred commits, ten compactions among them, while a thread opens the index over and over."""
    complaints, num_opened, is_over = list[str](), 0, threading.Event()

    def read() -> None:
        nonlocal num_opened
        while not is_over.is_set():
            try:
                opened = Index.open(index)
                paths = {item.path for item in opened.items(limit=1000)}
                if (
                    not len(paths) == opened.count() == opened.manifest.num_items
                    or "red/0.png" not in paths
                ):
                    complaints.append(f"{len(paths)} of {opened.manifest.num_items}")
                if num_opened % 10 == 0 and not (found := verify(index)).is_clean:
                    complaints.append(str(found.damages))
                num_opened += 1
            except Exception as error:
                complaints.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(100):
            with IndexWriter.open(index) as writer:
                newest = [
                    writer.add(made_up_item(10 * number + place, np.ones(4096, np.float32)))
                    for place in range(4)
                ]
                writer.commit()
                writer.remove(newest[number % 2 :])
                writer.commit()
            if number % 10 == 9:
                compact(index, force=True)
    finally:
        is_over.set()
        reader.join()
    assert complaints == []
    assert num_opened > 5
    assert Index.open(index).count() == 18 + 50


def test_a_second_writer_is_refused_until_the_first_has_finished(index: Path, more: Path) -> None:
    with IndexWriter.open(index):
        for change in (
            lambda: add(index, [str(more)]),
            lambda: remove(index, ids=[1]),
            lambda: compact(index),
        ):
            with pytest.raises(IndexDirectoryError, match="being changed by another process"):
                change()
    assert remove(index, ids=[1]) == 1


def test_any_file_name_can_be_added_and_removed(index: Path, tmp_path: Path) -> None:
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
    added = [name.decode("utf-8", "backslashreplace") for name in names]
    assert add(index, [str(folder)], prefix=os.fsdecode(b"\xfe/")).num_added == 5
    assert by_path(index).keys() >= {f"\\xfe/{name}" for name in added}
    remove(index, paths=[f"\\xfe/{name}" for name in added])
    files = [os.fsdecode(os.path.join(os.fsencode(folder), name)) for name in names]
    assert add(index, files).num_added == 5
    assert by_path(index).keys() >= set(added)
    assert remove(index, paths=[os.fsdecode(name) for name in names]) == 5
    assert verify(index).is_clean


def test_a_label_that_is_no_utf_8_is_searched_and_removed_as_it_was_typed(
    run: Run, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    folder, label = tmp_path / "cafe", os.fsdecode(b"caf\xe9")
    shutil.copytree(colour_folder / "red", folder / label)
    shutil.copytree(colour_folder / "blue", folder / "blue")
    build(str(folder), tiny_model, tmp_path / "index", device="cpu")
    status, out, _ = run(
        "search",
        tmp_path / "index",
        colour_folder / "blue" / "0.png",
        "--label",
        label,
        "-k",
        "2",
        "--json",
    )
    assert status == 0
    assert [match["label"] for match in json.loads(out)["results"][0]["matches"]] == [
        "caf\\xe9"
    ] * 2
    assert remove(tmp_path / "index", labels=[label]) == 6


def test_links_that_go_round_in_circles_and_files_that_vanish_do_no_harm(
    index: Path, more: Path
) -> None:
    (more / "red" / "up").symlink_to(more)
    (more / "red" / "self.png").symlink_to(more / "red" / "self.png")
    report = add(index, [str(more)])
    assert (report.num_added, report.num_changed, [skipped.path for skipped in report.skipped]) == (
        1,
        1,
        ["red/self.png"],
    )
    vanished = Example("red/vanished.png", "red", more / "red" / "vanished.png")
    with IndexWriter.open(index) as writer:
        report = batch._write([vanished], Embedder(index / "model"), writer, is_build=False)
    assert "cannot be read: No such file" in report.skipped[0].reason
