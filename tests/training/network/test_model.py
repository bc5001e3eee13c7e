"""A model directory's card and files: whole, or refused in one line."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.files import file_sha256, replacing, write_atomically
from training.network.model import (
    CARD_FILE,
    ModelCard,
    ModelError,
    check_file,
    read_card,
    write_card,
)

CARD = ModelCard(
    id="a" * 64,
    onnx_sha256="b" * 64,
    architecture={"layout": "paper"},
    class_names=("cat", "dög"),
    image_size=67,
    recipe={"epochs": 1},
    data={"name": "cats"},
    metrics={"top1": 0.5},
    versions={"python": "3"},
    created_at="2025-01-01T00:00:00+00:00",
)


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_card(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_card(CARD, tmp_path)
    assert read_card(tmp_path) == CARD


def test_no_directory_and_an_unfinished_one_are_told_apart(tmp_path: Path) -> None:
    assert "absent does not exist; make one with: lookalike train" in refusal(tmp_path / "absent")
    (tmp_path / "weights.safetensors").touch()
    assert (
        "has no model.json: it is no model, or its training has not finished; make one with: lookalike train"
        in refusal(tmp_path)
    )


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_format_is_refused_with_both_numbers(tmp_path: Path, version: Any) -> None:
    write_card(CARD, tmp_path)
    change(tmp_path, format_version=version)
    assert (
        f"has format {version}, this program reads 1; use the release that wrote it, or train again"
        in refusal(tmp_path)
    )


def test_a_damaged_card_is_refused(tmp_path: Path) -> None:
    write_card(CARD, tmp_path)
    whole = (tmp_path / CARD_FILE).read_bytes()
    for content in (
        b"",
        whole[:100],
        b"[]",
        b"{}",
        b"\xff\xfe",
        whole.replace(b'"class_names"', b'"classes"'),
    ):
        (tmp_path / CARD_FILE).write_bytes(content)
        assert "model.json is damaged" in refusal(tmp_path)
        assert "restore it from a copy, or train again" in refusal(tmp_path)


def test_a_file_is_let_through_only_with_its_own_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"the right bytes")
    sha256 = file_sha256(file)
    assert check_file(tmp_path, "model.onnx", sha256) == file
    file.write_bytes(b"the wrong bytes")
    with pytest.raises(
        ModelError,
        match=f"model.onnx should have SHA-256 {sha256[:12]} but has {file_sha256(file)[:12]}: it is damaged",
    ):
        check_file(tmp_path, "model.onnx", sha256)
    file.unlink()
    with pytest.raises(
        ModelError, match=r"model.onnx is missing; restore it from a copy, or train again"
    ):
        check_file(tmp_path, "model.onnx", sha256)


def test_the_checksum_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert (
        file_sha256(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2, appendix B


def test_an_interrupted_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.json"
    write_atomically(file, b"old")

    def pull_the_plug(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", pull_the_plug)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(file, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    write_atomically(file, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")],
)
def test_when_writing_fails_half_way_the_old_file_is_whole_and_nothing_else_is_left(
    error: BaseException, tmp_path: Path
) -> None:
    file = tmp_path / "model.json"
    write_atomically(file, b"old")

    def write_half() -> None:
        with replacing(file) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("model.json", b"old")
    ]


def test_where_there_was_no_file_a_failure_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), replacing(tmp_path / "model.json"):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(OSError, match="No space left on device") as caught, replacing(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write(2) reports it
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    with pytest.raises(FileNotFoundError) as missing, replacing(file):
        (tmp_path / "other").read_bytes()
    assert missing.value.filename == str(
        tmp_path / "other"
    )  # an error that names its file keeps it


def test_a_write_that_the_system_cuts_off_names_the_file_and_leaves_the_old_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "weights.safetensors"
    write_atomically(file, b"old")
    program = """
import resource, sys
from pathlib import Path
from training.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print(error.strerror, error.filename, sep="\\n")
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["File too large", str(file)]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("weights.safetensors", b"old")
    ]


def change(directory: Path, **changes: Any) -> None:
    file = directory / CARD_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
