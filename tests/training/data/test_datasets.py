"""The examples of a data set: where they come from, their names and labels, and the split."""

import csv
import dataclasses
import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.refusals import refusal
from training.data.datasets import Dataset, class_names, held_out_examples, open_dataset, split
from training.data.examples import DataError, Example
from training.data.images import read_square
from training.learning.recipe import paper

HELD_OUT_OF_20_CATS = ["cat/0.png", "cat/10.png", "cat/7.png", "cat/8.png"]


def touch(root: Path, *names: str) -> Path:
    """Create empty files. They are enough, because opening a data set decodes nothing."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(data: Path) -> list[tuple[str, str | None]]:
    return [(example.path, example.label) for example in open_dataset(data).examples]


def examples_of(label: str, count: int) -> list[Example]:
    return [Example(f"{label}/{number}.png", label, b"") for number in range(count)]


def paths(examples: tuple[Example, ...]) -> list[str]:
    return [example.path for example in examples]


def test_the_label_is_the_name_of_the_class_folder(tmp_path: Path) -> None:
    touch(tmp_path, "dog/2.jpg", "cat/1.jpg", "cat/kittens/0.jpg", "dog/10.jpg")
    dataset = open_dataset(tmp_path)
    assert [(example.path, example.label) for example in dataset.examples] == [
        ("cat/1.jpg", "cat"),
        ("cat/kittens/0.jpg", "cat"),
        ("dog/10.jpg", "dog"),
        ("dog/2.jpg", "dog"),
    ]
    assert [example.source for example in dataset.examples] == [
        tmp_path / example.path for example in dataset.examples
    ]
    assert dataset.name == str(tmp_path)


def test_hidden_files_and_files_beside_the_class_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "README.txt", ".DS_Store", ".git/objects/1.jpg")
    touch(tmp_path, "cat/.hidden.jpg", "cat/.trash/1.jpg", "cat/Thumbs.db", "cat/1.jpg")
    assert listed(tmp_path) == [("cat/1.jpg", "cat")]


def test_a_plain_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", ".hidden")
    assert listed(tmp_path) == [("a.jpg", None), ("b.jpg", None)]
    assert class_names(open_dataset(tmp_path).examples) == ()


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_the_folders_train_and_val_are_the_two_parts(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", f"{name}/cat/3.jpg", f"{name}/dog/4.jpg")
    dataset = open_dataset(tmp_path)
    assert [(example.path, example.label) for example in dataset.part("train")] == [
        ("train/cat/1.jpg", "cat"),
        ("train/dog/2.jpg", "dog"),
    ]
    assert paths(dataset.part("held-out")) == [f"{name}/cat/3.jpg", f"{name}/dog/4.jpg"]
    assert paths(dataset.part("all")) == [
        "train/cat/1.jpg",
        "train/dog/2.jpg",
        f"{name}/cat/3.jpg",
        f"{name}/dog/4.jpg",
    ]


def test_val_is_taken_before_test(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "test/cat/2.jpg", "val/cat/3.jpg")
    assert paths(open_dataset(tmp_path).part("held-out")) == ["val/cat/3.jpg"]


def test_other_data_can_be_held_out_instead(tmp_path: Path) -> None:
    touch(tmp_path / "one", "train/cat/1.jpg", "val/cat/2.jpg")
    touch(tmp_path / "other", "cat/3.jpg", "dog/4.jpg")
    assert paths(held_out_examples(str(tmp_path / "one"))) == ["val/cat/2.jpg"]
    assert paths(held_out_examples(str(tmp_path / "one"), str(tmp_path / "other"))) == [
        "cat/3.jpg",
        "dog/4.jpg",
    ]


def test_file_names_that_are_not_utf8_become_text_that_can_be_stored(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.jpg", "wb"):
        pass
    (example,) = open_dataset(tmp_path).examples
    assert (example.path, example.label) == (r"caf\xe9/\xff.jpg", r"caf\xe9")
    example.path.encode()
    assert isinstance(example.source, Path)
    assert example.source.exists()


def test_a_csv_gives_paths_relative_to_itself_and_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "photos.csv"
    file.write_text('path,label\nb.jpg,dog\n"sub/a, b.jpg",cat\n/far/away.jpg,\nshort.jpg\n')
    assert listed(file) == [
        ("b.jpg", "dog"),
        ("sub/a, b.jpg", "cat"),
        ("/far/away.jpg", None),
        ("short.jpg", None),
    ]
    assert [example.source for example in open_dataset(file).examples][1:3] == [
        tmp_path / "sub/a, b.jpg",
        Path("/far/away.jpg"),
    ]


def test_a_csv_may_have_other_columns_a_byte_order_mark_and_no_labels(tmp_path: Path) -> None:
    file = tmp_path / "photos.CSV"
    file.write_bytes("\ufeffpath,size\r\né.jpg,3\r\n".encode())
    assert listed(file) == [("é.jpg", None)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "needs a header line with `path,label` but begins with nothing"),
        (
            b"cat.jpg,cat\ndog.jpg,dog\n",
            "needs a header line with `path,label` but begins with cat.jpg,cat",
        ),
        (b"path,label\na.jpg,cat\n,dog\n", "line 3: the path is empty"),
        (b"path,label\na.jpg,cat\nb.jpg,dog\na.jpg,dog\n", "line 4: a.jpg is listed twice"),
        (b"path,label\ncaf\xe9.jpg,cat\n", "is not a CSV file in UTF-8"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", "is not a CSV file in UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_understood_is_refused_with_the_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "photos.csv"
    file.write_bytes(content)
    message = refusal(file)
    assert str(file) in message
    assert complaint in message


def test_a_wrong_path_is_refused_with_the_forms_that_data_can_have(tmp_path: Path) -> None:
    assert (
        "does not exist; pass a folder of class folders, a CSV (path,label), tar shards"
        in refusal(tmp_path / "absent")
    )
    touch(tmp_path, "photos.zip")
    assert "is neither a folder nor a .csv or .tar file; pass a folder" in refusal(
        tmp_path / "photos.zip"
    )


def test_an_empty_folder_has_no_examples(tmp_path: Path) -> None:
    assert listed(tmp_path) == []


def test_a_fifth_of_each_class_is_held_out_but_never_its_only_image() -> None:
    cats, dogs, eels, fox = map(examples_of, ("cat", "dog", "eel", "fox"), (50, 14, 2, 1))
    examples = [*cats, *dogs, *eels, *fox]
    kept, held_out = split(examples)
    assert Counter(example.label for example in held_out) == {
        "cat": 10,
        "dog": 2,
        "eel": 1,
    }
    assert sorted(kept + held_out, key=lambda example: example.path) == sorted(
        examples, key=lambda example: example.path
    )
    assert paths(kept) == sorted(paths(kept))
    assert paths(held_out) == sorted(paths(held_out))


def test_the_split_never_changes() -> None:
    _, held_out = split(examples_of("cat", 20))
    assert paths(held_out) == HELD_OUT_OF_20_CATS


def test_the_split_does_not_depend_on_the_order_or_on_other_classes() -> None:
    cats = examples_of("cat", 50)
    alone = split(cats)[1]
    assert split(reversed(cats))[1] == alone
    with_dogs = split([*examples_of("dog", 50), *cats])[1]
    assert tuple(example for example in with_dogs if example.label == "cat") == alone


def test_data_that_does_not_name_held_out_images_is_split(tmp_path: Path) -> None:
    dataset = Dataset(name="cats", examples=tuple(examples_of("cat", 20)))
    assert paths(dataset.part("held-out")) == HELD_OUT_OF_20_CATS
    assert set(dataset.part("train")) | set(dataset.part("held-out")) == set(dataset.part("all"))
    assert len(dataset.part("train")) == 16


def test_classes_are_in_alphabetical_order() -> None:
    examples = [*examples_of("dog", 2), *examples_of("ape", 1), Example("x", None, b"")]
    assert class_names(examples) == ("ape", "dog")


def test_numbers_do_not_change_the_order_of_classes() -> None:
    """Models store class indices, so the natural order would mix up the classes of older models."""
    examples = [Example(label, label, b"") for label in ("label 2", "label 10")]
    assert class_names(examples) == ("label 10", "label 2")


def test_the_digits_are_1797_real_images_that_can_be_read_and_must_not_be_mirrored() -> None:
    dataset = open_dataset("digits")
    assert len(dataset.examples) == 1797
    assert class_names(dataset.examples) == tuple("0123456789")
    assert paths(dataset.examples) == sorted(set(paths(dataset.examples)))
    recipe = dataclasses.replace(paper(), **dataset.recipe_defaults)
    assert not recipe.flip
    zero = next(example for example in dataset.examples if example.label == "0")
    assert isinstance(zero.source, bytes)
    square = read_square(zero.source, recipe.image_size)
    middle = square.shape[0] // 2
    ring, hole = int(square[middle].max()), int(square[middle, middle].max())
    assert ring > 100 + hole


def test_linked_class_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.png").touch()
    data = tmp_path / "data"
    (data / "dog").mkdir(parents=True)
    (data / "dog" / "2.png").touch()
    (data / "dog" / "loop").symlink_to(data)
    (data / "cat").symlink_to(elsewhere)
    assert [(example.path, example.label) for example in open_dataset(data).examples] == [
        ("cat/1.png", "cat"),
        ("dog/2.png", "dog"),
    ]


def test_a_link_to_a_class_folder_is_another_class_with_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "zebra").mkdir()
    (tmp_path / "zebra" / "1.png").touch()
    (tmp_path / "ass").symlink_to(tmp_path / "zebra")
    assert [example.path for example in open_dataset(tmp_path).examples] == [
        "ass/1.png",
        "zebra/1.png",
    ]


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    for name, other in (("cat", "dog"), ("dog", "cat")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
        (tmp_path / name / other).symlink_to(tmp_path / other)
    assert len(open_dataset(tmp_path).examples) == 4


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    scandir = os.scandir

    def fails_for_the_dog(path: str) -> object:
        if str(path).endswith("dog"):
            raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", fails_for_the_dog)
    with pytest.raises(
        DataError, match=r"dog cannot be listed \(Input/output error\); make it readable"
    ):
        open_dataset(tmp_path)


def test_an_index_in_the_folder_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "index/manifest.json", "index/.lock", "index/thumbnails-0.jpeg")
    assert listed(tmp_path) == [("cat/1.png", "cat")]


def test_images_beside_the_class_folders_are_left_out_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "cat/1.png", "2.png", "3.JPEG", "README")
    assert listed(tmp_path) == [("cat/1.png", "cat")]
    assert capsys.readouterr().err == (
        f"{tmp_path} has 2 images beside its folders (the first is 2.png); "
        "they are left out because they have no label\n"
    )


def test_imagenette_has_ten_classes_and_its_own_held_out_images(
    shared_data: Callable[[str], Path],
) -> None:
    root = shared_data("imagenette")
    dataset = open_dataset(root)
    train, held_out = dataset.part("train"), dataset.part("held-out")
    assert (len(train), len(held_out)) == (9469, 1949)
    assert class_names(train) == class_names(held_out)
    with (root / "classes.csv").open(newline="") as file:
        folders = {row["folder"] for row in csv.DictReader(file)}
    assert set(class_names(train)) == folders
    assert len(folders) == 10
    for example in (*train[::1000], *held_out[::500]):
        assert read_square(example.source, 67).shape == (67, 67, 3)


def test_only_our_own_tables_lose_the_apostrophe_before_a_formula(tmp_path: Path) -> None:
    own, other = tmp_path / "items.csv", tmp_path / "photos.csv"
    own.write_text("id,path,label,sha256\n1,'=1.png,'@cat,00\n2,'quoted'.png,,00\n")
    other.write_text("path,label\n'=1.png,'@cat\n")
    assert [(one.path, one.label) for one in open_dataset(own).examples] == [
        ("=1.png", "@cat"),
        ("'quoted'.png", None),
    ]
    assert [(one.path, one.label) for one in open_dataset(other).examples] == [("'=1.png", "'@cat")]
