"""`python -m service.client.index_folder`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.client import Client, index_folder
from tests.conftest import NUM_IMAGES_PER_COLOUR
from tests.service.client.fakes import KEY, PNG, URL, FakeService, again, problem
from tests.service.conftest import Run
from tests.service.pictures import picture

ROOT = Path(__file__).parents[3]
ALL_NEW = "4 added, 0 replaced, 0 unchanged, 1 unusable, 0 failed\n"


class Done(NamedTuple):
    """The exit status and the outputs of a run."""

    status: int
    out: str
    err: str


Index = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two class folders with two images each, and a text file in one of them."""
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(2):
            content = PNG + f"{label}{number}".encode()
            (tmp_path / "photos" / label / f"{number}.png").write_bytes(content)
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("text")
    return tmp_path / "photos"


@pytest.fixture
def index(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Index:
    """`index(service, "--threads", 2)` sends the folder to a fake service."""
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    monkeypatch.delenv(index_folder.KEY_VARIABLE, raising=False)

    def run(service: FakeService, *options: object, key_file: Path | None = key_file) -> Done:
        to_fake = partial(Client, transport=service.transport)
        monkeypatch.setattr("service.client.index_folder.Client", to_fake)
        keyed = ["--key-file", key_file] if key_file else []
        arguments = [URL, folder, *keyed, *options]
        monkeypatch.setattr("sys.argv", ["index_folder", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            index_folder.main()
        return Done(int(exit_info.value.code or 0), *capsys.readouterr())

    return run


def added_paths(service: FakeService) -> list[str]:
    return [request.url.params["path"] for request in service.requests if request.method == "POST"]


def test_the_label_is_the_folder_and_the_path_is_relative(index: Index) -> None:
    service = FakeService()
    done = index(service)
    assert (done.status, done.out) == (0, ALL_NEW)
    assert done.err == "unusable: cat/notes.txt: the file is not an image\n"
    assert sorted((item["path"], item["label"]) for item in service.items.values()) == [
        ("cat/0.png", "cat"),
        ("cat/1.png", "cat"),
        ("dog/0.png", "dog"),
        ("dog/1.png", "dog"),
    ]


def test_a_second_run_sends_only_what_is_missing_or_changed(index: Index, folder: Path) -> None:
    service = FakeService()
    index(service)
    (folder / "cat" / "notes.txt").unlink()
    (folder / "cat" / "1.png").write_bytes(PNG + b"another")
    (folder / "dog" / "2.png").write_bytes(PNG + b"new")
    service.requests.clear()
    done = index(service)
    assert done == (0, "1 added, 1 replaced, 3 unchanged, 0 unusable, 0 failed\n", "")
    assert sorted(added_paths(service)) == ["cat/1.png", "dog/2.png"]


def test_a_run_continues_after_an_interruption(index: Index) -> None:
    service = FakeService()
    index(service)
    for id in list(service.items)[2:]:
        del service.items[id]
    assert index(service).out == "2 added, 0 replaced, 2 unchanged, 1 unusable, 0 failed\n"


def test_a_file_that_cannot_be_read_is_unusable(index: Index, folder: Path) -> None:
    (folder / "dog" / "2.png").symlink_to(folder / "nowhere.png")
    done = index(FakeService())
    assert (done.status, done.out) == (0, ALL_NEW.replace("1 unusable", "2 unusable"))
    assert "unusable: dog/2.png: cannot be read" in done.err


def test_another_error_is_reported_and_the_other_images_are_sent(index: Index) -> None:
    service = FakeService()
    answer, num_added = service.answer, 0

    def fail_once(request: httpx.Request) -> httpx.Response:
        nonlocal num_added
        num_added += request.method == "POST"
        if request.method == "POST" and num_added == 1:
            return problem("internal-error", 500, "the service failed")
        return answer(request)

    service.answer = fail_once  # type: ignore[method-assign]
    done = index(service, "--threads", 1)
    assert (done.status, done.out) == (
        1,
        "3 added, 0 replaced, 0 unchanged, 1 unusable, 1 failed\n",
    )
    assert "failed: cat/0.png: the service failed\n" in done.err


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (problem("forbidden", 403, "writing is off"), "writing is off"),
        (httpx.ReadError("reset"), "reset"),
        (httpx.ReadTimeout("too late"), "too late"),
    ],
)
def test_an_error_that_meets_every_image_ends_the_run(
    index: Index, failure: httpx.Response | httpx.RequestError, text: str
) -> None:
    service = FakeService()
    answer = service.answer

    def fail_on_post(request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return answer(request)
        service.requests.append(request)
        if isinstance(failure, httpx.RequestError):
            raise failure
        return again(failure)

    service.answer = fail_on_post  # type: ignore[method-assign]
    done = index(service, "--threads", 1)
    assert (done.status, done.out.split(",")[0]) == (1, "0 added")
    (line,) = done.err.splitlines()
    assert line.startswith("index_folder: ")
    assert text in line
    assert len(added_paths(service)) < 5


def test_the_key_may_be_in_the_environment(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    without = index(FakeService(), key_file=None)
    assert without.status == 1
    monkeypatch.setenv(index_folder.KEY_VARIABLE, KEY)
    assert index(FakeService(), key_file=None).out == ALL_NEW


@pytest.mark.parametrize("content", [b"", b"\xff", b"two\nlines"])
def test_a_key_file_without_a_key_is_refused(index: Index, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "wrong"
    file.write_bytes(content)
    done = index(FakeService(), key_file=file)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("index_folder: ")
    assert "key" in done.err


def test_a_missing_key_file_or_folder_is_named(index: Index, folder: Path, tmp_path: Path) -> None:
    assert "nowhere" in index(FakeService(), key_file=tmp_path / "nowhere").err
    folder.rename(tmp_path / "moved")
    assert "photos does not exist" in index(FakeService()).err


def test_a_folder_is_added_to_a_real_service(
    run: Run, tiny_index: Path, own_colour_folder: Path, tmp_path: Path
) -> None:
    served = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    (own_colour_folder / "red" / "new.png").write_bytes(picture("red"))
    (own_colour_folder / "red" / "notes.txt").write_text("text")
    with run(index=served, write_key=KEY) as service:
        program = [sys.executable, "-m", "service.client.index_folder"]
        for num_added, num_unchanged in ((1, 18), (0, 19)):
            done = subprocess.run(
                [*program, service.url, str(own_colour_folder)],
                cwd=ROOT,
                env={**os.environ, index_folder.KEY_VARIABLE: KEY},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout == (
                f"{num_added} added, 0 replaced, {num_unchanged} unchanged, 1 unusable, 0 failed\n"
            )
            assert done.stderr.startswith("unusable: red/notes.txt: ")
        with Client(service.url) as client:
            assert client.items("red", limit=0).total == NUM_IMAGES_PER_COLOUR + 1


def test_the_module_is_a_program_that_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.client.index_folder", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "--key-file" in done.stdout
