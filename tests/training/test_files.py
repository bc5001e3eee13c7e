"""Files are replaced as a whole, or stay as they were."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.files import file_sha256, replacing, write_atomically

ROOT = Path(__file__).parents[2]
WRITE_WITH_A_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
from training.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print(error.strerror, error.filename, sep="\\n")
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_checksum_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == sha256


def test_an_interrupted_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.json"
    write_atomically(file, b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(file, b"new")
    assert contents(tmp_path) == {"model.json": b"old"}
    write_atomically(file, b"new")
    assert contents(tmp_path) == {"model.json": b"new"}


def test_the_file_and_its_new_name_are_flushed_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes: list[int] = []
    monkeypatch.setattr("os.fsync", lambda opened: inodes.append(os.fstat(opened).st_ino))
    write_atomically(tmp_path / "model.json", b"new")
    assert inodes == [(tmp_path / "model.json").stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")],
)
def test_an_error_half_way_keeps_the_old_file_and_leaves_nothing_else(
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
    assert contents(tmp_path) == {"model.json": b"old"}


def test_an_error_leaves_no_file_if_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), replacing(tmp_path / "model.json"):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(OSError, match="No space left on device") as caught, replacing(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write(2) reports it
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))


def test_an_error_that_names_another_file_keeps_that_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "model.onnx"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


def test_a_write_that_the_system_refuses_names_the_file_and_keeps_the_old_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "weights.safetensors"
    write_atomically(file, b"old")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_A_SIZE_LIMIT, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["File too large", str(file)]
    assert contents(tmp_path) == {"weights.safetensors": b"old"}
