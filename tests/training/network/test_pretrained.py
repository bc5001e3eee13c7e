"""The ImageNet weights: their source, their place in the cache, and the refusals without them."""

import errno
import hashlib
import re
from pathlib import Path

import pytest

from tests.training.network.file_server import CONTENT, NAME, SHA256, FileServer, status
from training.errors import UserError
from training.network.download import DownloadError, RefusedError
from training.network.pretrained import (
    WeightsError,
    cache_directory,
    cached_imagenet_weights,
    hint_at_scratch,
    imagenet_weights,
    weights_file,
)

OFFICIAL_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
OFFICIAL_NAME = "alexnet-owt-7be5be79.pth"
CORRECT_IT = "correct LOOKALIKE_WEIGHTS_URL, or unset it to use torchvision's server"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that does not exist yet."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LOOKALIKE_WEIGHTS_URL", raising=False)
    return tmp_path / "cache"


def refusal(source: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one line that is said if the weights do not come from this source.

    It must be true for `lookalike import` too, which has no option --init.
    """
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", source)
    with pytest.raises(UserError) as caught:
        imagenet_weights()
    assert "\n" not in str(caught.value)
    assert "--init" not in str(caught.value)
    return str(caught.value)


def test_the_weights_are_torchvisions_unless_the_variable_says_otherwise(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path, str]] = []
    monkeypatch.setattr(
        "training.network.pretrained.download", lambda *arguments: asked.append(arguments)
    )
    assert imagenet_weights() == cache / OFFICIAL_NAME
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", "")
    imagenet_weights()
    assert asked == [(OFFICIAL_URL, cache / OFFICIAL_NAME, "7be5be79")] * 2


def test_the_weights_are_downloaded_once_into_the_cache(
    server: FileServer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", server.url)
    assert cached_imagenet_weights() is None
    assert server.requests == []
    assert not cache.exists()
    for _ in range(2):
        assert imagenet_weights() == cache / NAME
    assert cached_imagenet_weights() == cache / NAME
    assert (cache / NAME).read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert capsys.readouterr().err == f"Downloading {cache / NAME}, once, from 127.0.0.1\n"


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    server: FileServer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", server.url)
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT[1:])
    assert cached_imagenet_weights() is None
    assert imagenet_weights().read_bytes() == CONTENT
    assert capsys.readouterr().err == (
        f"Downloading {cache / NAME} again, because it is damaged, from 127.0.0.1\n"
    )


def test_without_a_checksum_in_its_name_a_mirrors_file_has_to_be_torchvisions(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(f"{server.address}/get?id=5", monkeypatch)
    assert message == (
        f"{server.address}/get sent 300,000 bytes with SHA-256 {SHA256[:8]} instead of 7be5be79, "
        f"which were deleted; {CORRECT_IT}"
    )
    assert [one.name for one in cache.iterdir()] == [f"{OFFICIAL_NAME}.lock"]


def test_the_name_in_an_address_may_be_escaped(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", f"{server.address}/a/%2e%2e%2Fmy%20{NAME}")
    assert imagenet_weights() == cache / f"my {NAME}"


def test_a_file_on_this_machine_is_used_without_a_copy(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my weights"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    escaped = str(folder).replace(" ", "%20")
    for source, expected in (
        (f"{folder / NAME}", folder / NAME),
        (f"~/{NAME}", folder / NAME),
        (NAME, Path(NAME)),
        (f"file://{escaped}/{NAME}", folder / NAME),
        (f"file://localhost{escaped}/{NAME}", folder / NAME),
    ):
        monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", source)
        assert imagenet_weights() == expected
        assert cached_imagenet_weights() == expected
    assert not cache.exists()


def test_a_file_on_this_machine_that_cannot_be_used_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, unnamed = tmp_path / "alexnet-01234567.pth", tmp_path / "alexnet.pth"
    text = tmp_path / f"{NAME}.txt"
    for file in (wrong, unnamed, text):
        file.write_bytes(CONTENT)
    starts = f"whose SHA-256 starts with {SHA256[:8]} instead of"
    for file, problem in (
        (wrong, f"{starts} 01234567, the checksum in its name; copy the file again, or"),
        (
            unnamed,
            f"{starts} 7be5be79, the checksum of torchvision's file; copy the file again, or",
        ),
        (text, "which must end in .pth, .pt, .safetensors;"),
        (tmp_path / "absent.pth", "which does not exist;"),
        (tmp_path, "which is not a file;"),
    ):
        message = refusal(str(file), monkeypatch)
        assert message == f"LOOKALIKE_WEIGHTS_URL names {file}, {problem} {CORRECT_IT}"
        assert cached_imagenet_weights() is None
    assert wrong.read_bytes() == unnamed.read_bytes() == text.read_bytes() == CONTENT


def test_a_file_that_cannot_be_read_is_named_with_its_variable(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))  # root may read all

    (tmp_path / NAME).write_bytes(CONTENT)
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)
    for module in ("pretrained", "download"):
        monkeypatch.setattr(f"training.network.{module}.file_sha256", refuse)
    assert refusal(str(tmp_path / NAME), monkeypatch) == (
        f"LOOKALIKE_WEIGHTS_URL names {tmp_path / NAME}, which cannot be read (Permission denied); "
        f"make it readable, or {CORRECT_IT}"
    )
    assert cached_imagenet_weights() is None
    assert refusal(f"http://127.0.0.1:1/{NAME}", monkeypatch) == (
        f"{cache / NAME} cannot be read (Permission denied); make it readable, "
        "or set LOOKALIKE_CACHE to another folder that you can write to"
    )
    assert cached_imagenet_weights() is None


@pytest.mark.parametrize(
    "source",
    [f"s3://bucket/{NAME}", f"http:///{NAME}", f"file://other-host/{NAME}", f"https://[::1/{NAME}"],
)
def test_another_kind_of_address_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(source, monkeypatch) == (
        "LOOKALIKE_WEIGHTS_URL must be an http://, https:// or file:// URL, "
        f"or the path of a file, but got {source}; {CORRECT_IT}"
    )


def test_the_password_in_a_refused_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"but got ftp://host/{NAME};" in refusal(f"ftp://me:secret@host/{NAME}", monkeypatch)


def test_a_file_that_could_not_be_read_afterwards_is_not_downloaded(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(f"{server.address}/alexnet-01234567.zip", monkeypatch) == (
        "the file that LOOKALIKE_WEIGHTS_URL names must end in .pth, .pt, .safetensors, "
        f"but got alexnet-01234567.zip; {CORRECT_IT}"
    )
    assert server.requests == []


def test_a_server_without_the_file_is_not_asked_again(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.next_answers = [status(404)]
    message = refusal(server.url, monkeypatch)
    assert message == f"{server.url} answered 404 Not Found; {CORRECT_IT}"


def test_a_broken_download_is_continued_by_the_next_run(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.next_answers = [server.send(num_bytes=20_000)] * 4
    assert refusal(server.url, monkeypatch) == (
        f"{server.url} closed the connection after 80,000 of 300,000 bytes; "
        f"run the command again to continue, or {CORRECT_IT}"
    )
    assert imagenet_weights().read_bytes() == CONTENT
    assert server.ranges()[-1] == "bytes=80000-"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RefusedError, "set LOOKALIKE_WEIGHTS_URL to a mirror or to a file"),
        (
            DownloadError,
            "run the command again to continue, "
            "or set LOOKALIKE_WEIGHTS_URL to a mirror or to a file",
        ),
    ],
)
def test_without_the_variable_a_failure_asks_for_another_source(
    error: type[UserError], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error("no such luck")

    monkeypatch.setattr("training.network.pretrained.download", fail)
    assert refusal("", monkeypatch) == f"no such luck; {remedy}"


def test_a_full_disk_is_named_with_the_ways_out(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    cache.joinpath(f"{NAME}.part").symlink_to("/dev/full")
    assert refusal(server.url, monkeypatch) == (
        f"{cache / NAME}.part cannot be written (No space left on device); "
        "free some disk space, or set LOOKALIKE_CACHE to another folder that you can write to, "
        "and run the command again"
    )


def test_the_cache_is_the_variables_folder_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.setenv("LOOKALIKE_CACHE", "~/own")
    assert cache_directory() == tmp_path / "own"
    monkeypatch.delenv("LOOKALIKE_CACHE")
    assert cache_directory() == tmp_path / "xdg" / "lookalike"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_directory() == tmp_path / ".cache" / "lookalike"


def test_a_user_without_a_home_directory_is_asked_for_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOOKALIKE_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54_321)  # as in a container that runs as any user
    with pytest.raises(UserError, match=re.escape("set LOOKALIKE_CACHE to a folder")):
        imagenet_weights()


def test_the_word_imagenet_means_the_weights_and_a_path_means_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"x-{hashlib.sha256(b'').hexdigest()[:12]}.pth"
    file.touch()
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", str(file))
    assert weights_file("imagenet") == file
    assert weights_file("./imagenet") == weights_file(Path("imagenet")) == Path("imagenet")


def test_every_refusal_can_end_with_the_way_to_train_without_the_weights(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = "; to train from scratch on labelled images, pass --init none"
    full = cache / f"{NAME}.part"
    cache.mkdir()
    full.symlink_to("/dev/full")
    for source in (
        "/absent.pth",
        "ftp://host/alexnet.pth",
        f"{server.address}/get",  # another checksum
        f"http://127.0.0.1:1/{NAME}.zip",
        server.url,  # the disk is full
    ):
        monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", source)
        with pytest.raises(WeightsError) as caught, hint_at_scratch("imagenet"):
            imagenet_weights()
        assert str(caught.value) == refusal(source, monkeypatch) + hint


def test_an_error_about_another_network_has_no_hint_about_the_imagenet_weights() -> None:
    for init in (None, "none", "model", Path("imagenet")):
        with pytest.raises(UserError, match=r"^no such luck$"), hint_at_scratch(init):
            raise UserError("no such luck")
    with hint_at_scratch("imagenet"):
        pass
