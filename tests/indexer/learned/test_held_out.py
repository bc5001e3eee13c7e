import tarfile
from pathlib import Path

import pytest

from indexer.learned.held_out import held_out_by_training, held_out_folder, without_copies
from indexer.storage.index import Index
from tests.indexer.items import clusters, make_index
from training.data.datasets import HELD_OUT_FOLDERS, open_dataset


def write_images(root: Path, parts: tuple[str, ...] = ("",)) -> Path:
    """Write files into the class folders cat and dog of each part, but no images."""
    for number, part in enumerate(parts):
        for label in ("cat", "dog"):
            folder = root / part / label
            folder.mkdir(parents=True)
            for name in range(11 - 3 * number):
                (folder / f"{name}.png").write_bytes(b"")
    return root


def class_folders(root: Path) -> str:
    return str(write_images(root / "photos"))


def csv_with_such_folders(root: Path) -> str:
    paths = sorted(write_images(root, ("train", "val")).rglob("*.png"))
    lines = [f"{path.relative_to(root).as_posix()},{path.parent.name}" for path in paths]
    (root / "photos.csv").write_text("\n".join(["path,label", *lines]), "utf-8")
    return str(root / "photos.csv")


def shards_with_such_names(root: Path) -> str:
    for part in ("train", "val"):
        folder = write_images(root / part)
        with tarfile.open(root / f"{part}.tar", "w") as tar:
            for file in sorted(folder.rglob("*.png")):
                tar.add(file, file.relative_to(folder).as_posix())
    return str(root / "*.tar")


def digits(_: Path) -> str:
    return "digits"


@pytest.mark.parametrize(
    "make", [class_folders, csv_with_such_folders, shards_with_such_names, digits]
)
def test_the_images_that_training_holds_out_are_found_by_path_and_label(
    tmp_path: Path, make: object
) -> None:
    assert callable(make)
    data = make(tmp_path)
    dataset = open_dataset(data)
    texts = [(example.path, example.label) for example in dataset.part("all")]
    is_held_out = held_out_by_training(texts, data)
    found = {path for (path, _), is_found in zip(texts, is_held_out, strict=True) if is_found}
    assert found == {example.path for example in dataset.part("held-out")}
    assert 0 < len(found) < len(texts)


@pytest.mark.parametrize("folder", HELD_OUT_FOLDERS)
def test_a_folder_of_held_out_images_is_held_out(tmp_path: Path, folder: str) -> None:
    data = str(write_images(tmp_path / "photos", ("train", folder)))
    dataset = open_dataset(data)
    texts = [(example.path, example.label) for example in dataset.part("all")]
    is_held_out = held_out_by_training(texts, data)
    assert is_held_out.sum() == 16
    assert [path for path, _ in texts if path.startswith(f"{folder}/")] == [
        example.path for example in dataset.part("held-out")
    ]
    assert is_held_out.tolist() == [path.startswith(f"{folder}/") for path, _ in texts]


def test_a_single_part_is_not_a_folder_of_held_out_images_next_to_train() -> None:
    assert held_out_folder(["val/cat/1.png"], "photos") is None
    assert held_out_folder(["train/cat/1.png"], "photos") is None
    assert held_out_folder(["train/cat/1.png", "test/cat/1.png", "val/2.png"], "photos") == "val"
    assert held_out_folder(["train/cat/1.png", "val/cat/1.png"], "photos.csv") is None


def test_copies_of_items_that_are_kept_are_not_held_out(tmp_path: Path, tiny_model: Path) -> None:
    features, labels = clusters(2, 4)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels], [0, 1, 0, 3])
    index = Index.open(directory)
    is_held_out = index.rows >= 2  # item 2 has the bytes of item 0
    assert without_copies(index, index.rows, is_held_out).tolist() == [False, False, False, True]
