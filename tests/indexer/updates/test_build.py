"""Builds: the index becomes equal to the data, and whatever stops a build loses no commit."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.embedder import Embedder
from indexer.storage.growing_files import GrowingFile
from indexer.storage.index import Index
from indexer.storage.manifest import Extent, IndexDirectoryError
from indexer.storage.writer import IndexWriter
from indexer.updates.build import build
from indexer.updates.verify import verify
from tests.conftest import NUM_IMAGES_PER_COLOUR, coloured
from tests.indexer.items import features_by_path
from training.data.examples import DataError
from training.data.images import read_square
from training.devices import Precision
from training.network.model import ModelError


def test_build_indexes_every_image_with_its_label_size_and_thumbnail(tiny_index: Path) -> None:
    index = Index.open(tiny_index)
    assert index.labels() == dict.fromkeys(("blue", "green", "red"), NUM_IMAGES_PER_COLOUR)
    item = index.items()[0]
    assert (item.path, item.label, item.width, item.height) == ("blue/0.png", "blue", 96, 80)
    assert (index.thumbnail(item.id) or b"").startswith(b"\xff\xd8\xff")


def test_a_second_build_changes_nothing(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.updates.prepare.RACY_S", 0.0)
    out = tmp_path / "index"
    build(str(own_colour_folder), tiny_model, out, device="cpu")
    manifest = (out / "manifest.json").read_bytes()
    report = build(str(own_colour_folder), tiny_model, out, device="cpu")
    assert (report.num_added, report.num_changed, report.num_removed) == (0, 0, 0)
    assert report.num_unchanged == 18
    assert (out / "manifest.json").read_bytes() == manifest


def test_build_brings_an_index_up_to_date(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build(str(own_colour_folder), tiny_model, out, device="cpu")
    (own_colour_folder / "red" / "0.png").unlink()
    coloured("green", 999).save(own_colour_folder / "blue" / "1.png")
    coloured("blue", 998).save(own_colour_folder / "blue" / "new.png")
    report = build(str(own_colour_folder), tiny_model, out, device="cpu")
    assert (report.num_added, report.num_changed, report.num_removed) == (1, 1, 1)
    assert report.num_items == 18
    build(str(own_colour_folder), tiny_model, tmp_path / "fresh", device="cpu")
    updated, fresh = features_by_path(out), features_by_path(tmp_path / "fresh")
    assert updated.keys() == fresh.keys()
    for path, feature in fresh.items():
        # Batches of other sizes round differently.
        np.testing.assert_allclose(
            np.frombuffer(updated[path], "<f4"), np.frombuffer(feature, "<f4"), rtol=1e-4, atol=1e-4
        )


def test_unreadable_files_are_skipped_and_listed_with_their_reasons(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    content = (own_colour_folder / "red" / "0.png").read_bytes()
    (own_colour_folder / "red" / "cut.png").write_bytes(content[: len(content) // 2])
    (own_colour_folder / "red" / "empty.png").write_bytes(b"")
    (own_colour_folder / "blue" / "notes.txt").write_text("not an image")
    os.symlink(own_colour_folder / "nowhere.png", own_colour_folder / "blue" / "dangling.png")
    report = build(str(own_colour_folder), tiny_model, tmp_path / "index", device="cpu")
    assert report.num_items == 18
    listed = (tmp_path / "index" / "skipped.csv").read_text()
    for name, reason in (
        ("cut.png", "cut off"),
        ("empty.png", "empty"),
        ("notes.txt", "not an image"),
        ("dangling.png", "cannot be read"),
    ):
        assert reason in next(line for line in listed.splitlines() if name in line)


def test_a_folder_without_a_readable_image_is_an_error_and_no_index_counts(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "1.png").write_bytes(b"nothing like an image")
    with pytest.raises(DataError, match=r"no readable image: cat/1\.png: this is not an image"):
        build(str(tmp_path / "data"), tiny_model, tmp_path / "index", device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        build(str(tmp_path / "empty"), tiny_model, tmp_path / "other", device="cpu")


def test_two_images_with_the_same_path_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"caf\xe9.png", rb"caf\xe9.png"):
        coloured("red", 1).save(tmp_path / "image.png")
        os.rename(tmp_path / "image.png", os.path.join(os.fsencode(folder), name))
    with pytest.raises(DataError, match=r"two images of .* have the path caf\\xe9\.png"):
        build(str(folder), tiny_model, tmp_path / "index", device="cpu")


def test_a_plain_folder_is_indexed_without_labels(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    coloured("red", 1).save(tmp_path / "plain" / "a\nb.png")
    report = build(str(tmp_path / "plain"), tiny_model, tmp_path / "index", device="cpu")
    assert report.num_items == 1
    item = Index.open(tmp_path / "index").items()[0]
    assert (item.path, item.label) == ("a\nb.png", None)


def test_another_model_is_refused_with_both_ids(
    colour_folder: Path, tiny_index: Path, other_model: Path
) -> None:
    message = r"was built with model \w{12} but .* is model \w{12}; pass the --model that"
    with pytest.raises(IndexDirectoryError, match=message):
        build(str(colour_folder), other_model, tiny_index, device="cpu")


def test_another_collection_is_refused_and_nothing_is_removed(
    tiny_index: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "cats" / "tabby").mkdir(parents=True)
    coloured("red", 5).save(tmp_path / "cats" / "tabby" / "x.png")
    with pytest.raises(IndexDirectoryError, match="must be another collection"):
        build(str(tmp_path / "cats"), tiny_model, tiny_index, device="cpu")
    assert Index.open(tiny_index).count() == 18


def test_a_directory_with_other_files_is_refused_and_left_alone(
    colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(IndexDirectoryError, match="holds other files"):
        build(str(colour_folder), tiny_model, tmp_path, device="cpu")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_writer_gets_a_clear_error(
    colour_folder: Path, tiny_index: Path, tiny_model: Path
) -> None:
    with (
        IndexWriter.open(tiny_index, tiny_model),
        pytest.raises(IndexDirectoryError, match="being changed by another process"),
    ):
        build(str(colour_folder), tiny_model, tiny_index, device="cpu")


@pytest.mark.parametrize(
    "kind", ["features", "texts", "thumbnails", "records", "removed", "manifest"]
)
def test_a_killed_commit_is_seen_by_no_reader_and_undone(
    own_colour_folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    out = tmp_path / "index"
    build(str(own_colour_folder), tiny_model, out, device="cpu")
    coloured("red", 77).save(own_colour_folder / "red" / "new.png")
    (own_colour_folder / "blue" / "0.png").unlink()
    sync = GrowingFile.sync

    def die_at(file: GrowingFile) -> Extent:
        if file._path.name.startswith(kind):
            raise MemoryError("as if killed here")
        return sync(file)

    def die(*_: object) -> None:
        raise MemoryError("as if killed here")

    with monkeypatch.context() as patched:
        patched.setattr(GrowingFile, "sync", die_at)
        if kind == "manifest":
            patched.setattr("indexer.storage.writer.write_manifest", die)
        with pytest.raises(MemoryError):
            build(str(own_colour_folder), tiny_model, out, device="cpu")
    before = Index.open(out)
    assert before.count() == 18
    assert "blue/0.png" in {item.path for item in before.items()}
    assert verify(out).is_clean
    report = build(str(own_colour_folder), tiny_model, out, device="cpu")
    assert (report.num_added, report.num_removed, report.num_items) == (1, 1, 18)
    after = Index.open(out)
    assert "red/new.png" in {item.path for item in after.items()}
    assert after.manifest.is_complete
    assert verify(out).is_clean


def test_an_interrupted_first_build_continues_where_it_was(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    monkeypatch.setattr("indexer.updates.pipeline.BATCH_SIZES", {"cpu": 4})
    monkeypatch.setattr("indexer.updates.pipeline.COMMIT_INTERVAL_S", -1.0)  # after every image
    num_commits, commit = 0, IndexWriter.commit

    def commit_eight_times_then_stop(
        writer: IndexWriter, *, is_complete: bool | None = None
    ) -> None:
        nonlocal num_commits
        num_commits += 1
        if num_commits == 9:
            raise RuntimeError("as if the power had failed")
        commit(writer, is_complete=is_complete)

    with monkeypatch.context() as patched:
        patched.setattr(IndexWriter, "commit", commit_eight_times_then_stop)
        with pytest.raises(RuntimeError):
            build(str(own_colour_folder), tiny_model, out, device="cpu")
    half = Index.open(out)
    assert (half.count(), half.manifest.is_complete) == (8, False)
    report = build(str(own_colour_folder), tiny_model, out, device="cpu")
    assert (report.num_unchanged, report.num_added, report.num_items) == (8, 10, 18)
    assert Index.open(out).manifest.is_complete


def test_remains_of_an_interrupted_creation_do_not_stop_the_next_build(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    (out / "model").mkdir(parents=True)
    for name in (
        ".lock",
        ".manifest.json.tmp",
        "records-0.bin",
        "features-0.f32",
        "model/.model.onnx.tmp",
    ):
        (out / name).write_bytes(b"half")
    assert build(str(own_colour_folder), tiny_model, out, device="cpu").num_items == 18


def test_features_are_float32_unless_the_build_asks_for_int8(
    colour_folder: Path, int8_model: Path, tmp_path: Path
) -> None:
    data, default, asked = str(colour_folder), tmp_path / "default", tmp_path / "asked"
    build(data, int8_model, default, device="cpu")
    build(data, int8_model, asked, device="cpu", precision="int8")
    assert Index.open(default).manifest.feature_precision == "float32"
    assert "precision" not in (default / "manifest.json").read_text()
    assert Index.open(asked).manifest.feature_precision == "int8"
    squares = np.stack([read_square(colour_folder / "blue" / "0.png", 67)])
    precisions: dict[Path, Precision] = {default: "float32", asked: "int8"}
    for index, precision in precisions.items():
        expected = Embedder(int8_model, precision=precision).embed(squares).features
        np.testing.assert_allclose(Index.open(index).features[0], expected[0], atol=1e-4)


def test_an_index_keeps_its_precision(
    own_colour_folder: Path, int8_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = str(own_colour_folder), tmp_path / "index"
    build(data, int8_model, out, device="cpu", precision="int8")
    coloured("red", 77).save(own_colour_folder / "red" / "new.png")
    used: list[str] = []

    def recorded(*arguments: Any, **options: Any) -> Embedder:
        used.append(options["precision"])
        return Embedder(*arguments, **options)

    monkeypatch.setattr("indexer.updates.build.Embedder", recorded)
    assert build(data, int8_model, out, device="cpu").num_added == 1
    assert used == ["int8"]
    message = "features in .* are int8, and --precision float32 would mix them with others; leave"
    with pytest.raises(IndexDirectoryError, match=message):
        build(data, int8_model, out, device="cpu", precision="float32")
    assert Index.open(out).count() == 19


def test_a_model_without_int8_leaves_no_index_behind(
    colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"lookalike export .* --int8 DATA"):
        build(str(colour_folder), tiny_model, tmp_path / "index", precision="int8")
    assert not (tmp_path / "index").exists()


def test_a_network_in_int8_that_was_made_later_is_copied_into_the_index(
    colour_folder: Path, tiny_model: Path, int8_model: Path, tmp_path: Path
) -> None:
    data, out = str(colour_folder), tmp_path / "index"
    build(data, tiny_model, out, device="cpu")
    assert not (out / "model" / "model.int8.onnx").exists()
    build(data, int8_model, out, device="cpu")
    assert verify(out).is_clean
    assert "model.int8.onnx" in Index.open(out).manifest.model_files
    assert Embedder(out / "model", precision="int8").precision == "int8"


def test_hostile_files_are_skipped_and_listed_with_their_reasons(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run_lengths = struct.pack("<IiiHHIIiiII", 40, 50_000_000, 1, 1, 8, 1, 0, 0, 0, 0, 0)
    (own_colour_folder / "red" / "a.bmp").write_bytes(b"BM" + bytes(12) + run_lengths)
    (own_colour_folder / "red" / "b.ppm").write_bytes(b"P3\n9 9\n255\n" + b"#\n0 " * 243)
    (own_colour_folder / "red" / "c.pgm").write_bytes(b"P5\n#" + bytes(2000) + b"\n1 1\n255\n0")
    build(str(own_colour_folder), tiny_model, tmp_path / "index", device="cpu")
    listed = (tmp_path / "index" / "skipped.csv").read_text()
    for name, reason in (
        ("a.bmp", "the BMP is compressed"),
        ("b.ppm", "PNM of the kind P3"),
        ("c.pgm", "the header of the PNM has more than"),
    ):
        assert reason in next(line for line in listed.splitlines() if name in line)
