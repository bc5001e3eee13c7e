"""Images as the fields of a form."""

import os
from pathlib import Path
from typing import Any

import pytest

from service.client.images import as_sequence, form_files
from training.errors import UserError


def test_one_image_and_a_list_are_told_apart() -> None:
    assert as_sequence(("a.png", b"a")) == (("a.png", b"a"),)
    assert as_sequence([("a.png", b"a"), b"b"]) == (("a.png", b"a"), b"b")
    assert as_sequence([]) == ()


def test_images_are_files_with_names(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat")
    files = form_files([path, str(path), ("dog.png", b"dog"), b"anything"])
    assert files == [
        ("image", ("cat.png", b"cat")),
        ("image", ("cat.png", b"cat")),
        ("image", ("dog.png", b"dog")),
        ("image", ("image 4", b"anything")),
    ]


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.png")
    path.write_bytes(b"cat")
    assert form_files([path]) == [("image", ("\\xff.png", b"cat"))]


@pytest.mark.parametrize("name", ["missing.png", "", "null\0.png"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read") as raised:
        form_files([tmp_path / name])
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("image", "kind"), [(7, "int"), (None, "NoneType"), ((b"a", b"b"), "tuple"), (("a",), "tuple")]
)
def test_other_values_are_refused(image: Any, kind: str) -> None:
    with pytest.raises(UserError, match=f"got {kind}"):
        form_files([image])
