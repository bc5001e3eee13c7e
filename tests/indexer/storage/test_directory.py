"""The directory of an index: how it begins, its lock, its model, and leftovers."""

import shutil
from pathlib import Path

import pytest

from indexer.storage.directory import (
    WRITTEN_FILE,
    copy_model,
    create,
    make_directory,
    remove_leftovers,
    take_lock,
)
from indexer.storage.index import Index
from indexer.storage.manifest import COPY_FILE, IndexDirectoryError, read_manifest
from training.files import file_sha256
from training.network.model import ModelError, read_card


def test_a_new_index_has_no_items_and_a_copy_of_its_model(stand_in: Path, tmp_path: Path) -> None:
    make_directory(tmp_path / "deep" / "index")
    create(tmp_path / "deep" / "index", stand_in, read_card(stand_in))
    index = Index.open(tmp_path / "deep" / "index")
    assert (index.count(), index.manifest.commit, index.manifest.is_complete) == (0, 0, False)
    assert index.manifest.model_id == read_card(stand_in).id
    for name in ("model.json", "model.onnx"):
        assert (index.directory / "model" / name).read_bytes() == (stand_in / name).read_bytes()


def test_the_copy_of_the_model_includes_its_network_in_int8(
    int8_model: Path, tmp_path: Path
) -> None:
    card = read_card(int8_model)
    assert card.int8
    (tmp_path / "index").mkdir()
    model_files = copy_model(int8_model, card, tmp_path / "index")
    assert list(model_files) == ["model.onnx", "model.int8.onnx", "model.json"]
    assert model_files["model.int8.onnx"] == card.int8.sha256
    for name, sha256 in model_files.items():
        assert file_sha256(tmp_path / "index" / "model" / name) == sha256
    make_directory(tmp_path / "index")  # an interrupted build left only these files


def test_a_network_in_int8_that_is_missing_or_damaged(int8_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(int8_model, tmp_path / "model"))
    (tmp_path / "index").mkdir()
    (model / "model.int8.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="damaged or belongs to another model"):
        copy_model(model, read_card(model), tmp_path / "index")
    (model / "model.int8.onnx").unlink()
    model_files = copy_model(model, read_card(model), tmp_path / "index")
    assert list(model_files) == ["model.onnx", "model.json"]


@pytest.mark.parametrize("name", ["thesis.tex", "model/weights.safetensors", "records-0.txt"])
def test_a_directory_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    with pytest.raises(IndexDirectoryError, match="holds other files and is not an index"):
        make_directory(tmp_path)


def test_an_index_may_lie_beside_other_files(index: Path) -> None:
    (index / "notes.txt").write_text("mine")
    make_directory(index)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IndexDirectoryError, match=r"cannot be made .*; pass another --out"):
        make_directory(tmp_path / "file" / "index")


def test_only_one_lock_can_be_held(index: Path) -> None:
    lock = take_lock(index)
    with pytest.raises(IndexDirectoryError, match="is being changed by another process"):
        take_lock(index)
    lock.close()
    take_lock(index).close()


def test_a_model_whose_network_is_damaged_is_not_copied(stand_in: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(stand_in, tmp_path / "model-of-another"))
    (model / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"model\.onnx should have SHA-256"):
        copy_model(model, read_card(stand_in), tmp_path)


def test_leftovers_are_deleted_and_everything_that_a_commit_names_stays(index: Path) -> None:
    leftovers = (
        "records-1.bin",
        "codes-9.bin",
        "euclidean-3.faiss",
        "stamps-12.npz",
        ".manifest.json.tmp",
    )
    others = ("notes.txt", "records.bin", "skipped.csv", "a-b.png", ".hidden")
    before = {file.name for file in index.iterdir()}
    for name in (*leftovers, *others):
        (index / name).write_bytes(b"")
    remove_leftovers(index, read_manifest(index))
    assert {file.name for file in index.iterdir()} == before | set(others)


def test_files_of_the_manifests_copy_are_not_leftovers(index: Path) -> None:
    (index / "manifest.json").unlink()
    remove_leftovers(index)
    assert (index / "records-0.bin").exists()
    (index / COPY_FILE).unlink()
    remove_leftovers(index)
    assert not (index / "records-0.bin").exists()


def test_only_names_that_a_writer_gives_match_its_pattern() -> None:
    for name in ("features-10.f32", "removed-0.u64", "mappicture-4.png", "map-4.json", ".x.tmp"):
        assert WRITTEN_FILE.fullmatch(name)
    for name in ("features-10.u64", "features-x.f32", "photo.png", "x.tmp", "map-4.json.bak"):
        assert not WRITTEN_FILE.fullmatch(name)
