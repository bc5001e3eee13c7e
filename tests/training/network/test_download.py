"""A download is complete and checked, or it stays a partial file that the next run continues."""

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from tests.training.network.file_server import (
    CONTENT,
    NAME,
    SHA256,
    FileServer,
    stall,
    status,
)
from training.errors import UserError
from training.network.download import (
    PAUSES_S,
    DownloadError,
    RefusedError,
    StorageError,
    download,
    is_reachable,
)

ROOT = Path(__file__).parents[3]
NUM_ATTEMPTS = 1 + len(PAUSES_S)
DOWNLOAD = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
from pathlib import Path
from training.network.download import download
download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The place for the download. Its folder does not exist yet."""
    return tmp_path / "cache" / NAME


def part_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def names_beside(file: Path) -> set[str]:
    """The names in the file's folder, without the lock."""
    return {one.name for one in file.parent.iterdir()} - {f"{file.name}.lock"}


def refusal(kind: type[UserError], url: str, file: Path, sha256: str = SHA256) -> str:
    """The one line with which a download fails."""
    with pytest.raises(kind) as caught:
        download(url, file, sha256)
    assert caught.type is kind
    assert "\n" not in str(caught.value)
    assert not file.exists()
    return str(caught.value)


def test_a_download_gives_the_file_and_leaves_nothing_beside_it(
    server: FileServer, file: Path
) -> None:
    download(server.url, file, SHA256[:8])
    assert file.read_bytes() == CONTENT
    assert names_beside(file) == {NAME}
    assert [(one.method, one.target) for one in server.requests] == [("GET", f"/{NAME}")]
    assert server.ranges() == [None]


def test_a_file_that_is_there_is_not_downloaded_again(server: FileServer, file: Path) -> None:
    for _ in range(2):
        download(server.url, file, SHA256)
    assert len(server.requests) == 1


def test_a_damaged_file_is_downloaded_again(server: FileServer, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(CONTENT[:-1] + b"?")
    download(server.url, file, SHA256)
    assert file.read_bytes() == CONTENT


def test_the_file_and_its_name_are_flushed_to_the_disk(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes: list[int] = []
    monkeypatch.setattr("os.fsync", lambda opened: inodes.append(os.fstat(opened).st_ino))
    download(server.url, file, SHA256)
    assert inodes == [file.stat().st_ino, file.parent.stat().st_ino]


def test_a_broken_connection_is_continued_where_it_broke(
    server: FileServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.next_answers = [server.send(num_bytes=100_000), server.send(num_bytes=50_000)]
    download(server.url, file, SHA256)
    assert file.read_bytes() == CONTENT
    assert names_beside(file) == {NAME}
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert [one.headers.get("If-Range") for one in server.requests] == [None, *['"first"'] * 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        f"{server.url} closed the connection after 100,000 of 300,000 bytes: trying again in 0 s"
    )
    assert len(lines) == 2


def test_after_the_last_attempt_the_partial_file_stays_and_the_next_run_continues(
    server: FileServer, file: Path
) -> None:
    server.next_answers = [server.send(num_bytes=20_000)] * NUM_ATTEMPTS
    message = refusal(DownloadError, server.url, file)
    assert message == f"{server.url} closed the connection after 80,000 of 300,000 bytes"
    assert part_of(file).read_bytes() == CONTENT[:80_000]
    download(server.url, file, SHA256)
    assert server.ranges()[-1] == "bytes=80000-"
    assert len(server.requests) == NUM_ATTEMPTS + 1
    assert file.read_bytes() == CONTENT


def test_as_long_as_attempts_bring_the_file_forward_there_is_another(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.download.MIN_PROGRESS_BYTES", 20_000)
    server.next_answers = [server.send(num_bytes=20_000)] * (2 * NUM_ATTEMPTS)
    download(server.url, file, SHA256)
    assert file.read_bytes() == CONTENT
    assert len(server.requests) == 2 * NUM_ATTEMPTS + 1


def test_a_server_without_ranges_sends_the_file_from_the_start(
    server: FileServer, file: Path
) -> None:
    server.next_answers = [server.send(num_bytes=100_000), server.send(has_ranges=False)]
    download(server.url, file, SHA256)
    assert server.ranges() == [None, "bytes=100000-"]
    assert file.read_bytes() == CONTENT


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.download.MIN_PROGRESS_BYTES", 20_000)
    server.next_answers = [server.send(num_bytes=100_000, has_ranges=False)] * 20
    refusal(DownloadError, server.url, file)
    assert len(server.requests) == NUM_ATTEMPTS


def test_a_file_that_changed_on_the_server_is_not_mixed_with_the_old_one(
    server: FileServer, file: Path
) -> None:
    server.next_answers = [server.send(num_bytes=20_000)] * NUM_ATTEMPTS
    refusal(DownloadError, server.url, file)
    server.content, server.etag = CONTENT[::-1], '"second"'
    download(server.url, file, hashlib.sha256(server.content).hexdigest())
    assert file.read_bytes() == CONTENT[::-1]


def test_a_server_that_names_no_version_is_continued_without_a_condition(
    server: FileServer, file: Path
) -> None:
    server.next_answers = [server.send(num_bytes=100_000, has_version=False)]
    download(server.url, file, SHA256)
    assert server.ranges() == [None, "bytes=100000-"]
    assert "If-Range" not in server.requests[1].headers
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("etag", "condition"), [('W/"weak"', "Fri, 01 Aug 2025 10:00:00 GMT"), ('"strong"', '"strong"')]
)
def test_a_weak_etag_is_replaced_by_the_date(
    server: FileServer, file: Path, etag: str, condition: str
) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", etag)
        handler.send_header("Last-Modified", "Fri, 01 Aug 2025 10:00:00 GMT")
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])

    server.next_answers = [cut]
    download(server.url, file, SHA256)
    assert server.requests[1].headers["If-Range"] == condition


def test_a_partial_file_longer_than_the_servers_is_begun_anew(
    server: FileServer, file: Path
) -> None:
    file.parent.mkdir()
    part_of(file).write_bytes(bytes(len(CONTENT) + 10))
    download(server.url, file, SHA256)
    assert server.ranges() == [f"bytes={len(CONTENT) + 10}-", None]
    assert file.read_bytes() == CONTENT


def test_a_range_that_was_not_asked_for_is_not_appended(server: FileServer, file: Path) -> None:
    file.parent.mkdir()
    part_of(file).write_bytes(CONTENT[:1000])
    server.next_answers = [status(206, Content_Range="bytes 500-299999/300000")]
    download(server.url, file, SHA256)
    assert server.ranges() == ["bytes=1000-", None]
    assert file.read_bytes() == CONTENT


def test_a_damaged_note_of_the_version_does_not_hold_a_download_up(
    server: FileServer, file: Path
) -> None:
    file.parent.mkdir()
    part_of(file).write_bytes(CONTENT[:1000])
    version = file.with_name(f"{NAME}.part.version")
    for damaged in (b'"first"\n\0\0', b"\xff\xfe", b""):
        version.write_bytes(damaged)
        download(server.url, file, SHA256)
        assert "If-Range" not in server.requests[-1].headers
        file.unlink()


def test_a_complete_partial_file_needs_no_request(server: FileServer, file: Path) -> None:
    file.parent.mkdir()
    part_of(file).write_bytes(CONTENT)  # killed before the file got its name
    download(server.url, file, SHA256)
    assert (names_beside(file), server.requests) == ({NAME}, [])


def test_a_wrong_checksum_is_named_and_the_received_bytes_are_deleted(
    server: FileServer, file: Path
) -> None:
    message = refusal(RefusedError, server.url, file, "7be5be79")
    assert message == (
        f"{server.url} sent 300,000 bytes with SHA-256 {SHA256[:8]} instead of 7be5be79, "
        "which were deleted"
    )
    assert names_beside(file) == set()
    assert len(server.requests) == 1


def test_a_disk_without_room_is_named_before_anything_is_written(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100_000))
    assert refusal(StorageError, server.url, file) == (
        f"{file.parent} has 0.1 MB of free space, but the download needs 0.3 MB"
    )
    assert names_beside(file) == set()
    part_of(file).write_bytes(CONTENT[:200_000])  # the rest fits
    download(server.url, file, SHA256)


def test_a_disk_that_fills_up_is_named(server: FileServer, file: Path) -> None:
    file.parent.mkdir()
    part_of(file).symlink_to("/dev/full")
    assert refusal(StorageError, server.url, file) == (
        f"{part_of(file)} cannot be written (No space left on device)"
    )
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_made_is_named(server: FileServer, file: Path) -> None:
    file.parent.write_text("not a folder")
    message = refusal(StorageError, server.url, file)
    assert message == f"{file.parent} cannot be written (File exists)"
    assert server.requests == []


def test_a_port_without_a_server_is_named(server: FileServer, file: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
        message = refusal(DownloadError, url, file)
    assert message == f"{url} cannot be read (Connection refused)"


@pytest.mark.parametrize(
    ("code", "num_lookups"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, NUM_ATTEMPTS)]
)
def test_an_unknown_host_is_named_and_only_a_resolver_that_fails_is_asked_again(
    file: Path,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    num_lookups: int,
) -> None:
    lookups: list[str] = []

    def fail(host: str, *_: Any, **__: Any) -> None:
        lookups.append(host)
        raise socket.gaierror(code, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    message = refusal(DownloadError, f"https://weights.invalid/{NAME}", file)
    assert message == (f"https://weights.invalid/{NAME} cannot be read (Name or service not known)")
    assert lookups == ["weights.invalid"] * num_lookups


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/a.pth", f"http://{'x' * 70}.org/a.pth"])
def test_a_malformed_address_is_named_at_once(
    file: Path, server: FileServer, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(RefusedError, url, file).startswith(f"{url} cannot be read (")
    assert capsys.readouterr().err == ""


@contextmanager
def released_at_the_end() -> Iterator[threading.Event]:
    """An event that a server waits for. At the end it is set, so that the server stops."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def test_a_server_that_stops_sending_is_asked_again_after_the_timeout(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.download.TIMEOUT_S", 0.3)
    with released_at_the_end() as event:
        server.next_answers = [server.send(num_bytes=1000, wait=event), stall(event)]
        download(server.url, file, SHA256)
    assert server.ranges() == [None, "bytes=1000-", "bytes=1000-"]
    assert file.read_bytes() == CONTENT


def test_a_server_that_never_answers_is_named(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.download.TIMEOUT_S", 0.1)
    with released_at_the_end() as event:
        server.next_answers = [stall(event)] * NUM_ATTEMPTS
        message = refusal(DownloadError, server.url, file)
    assert message == f"{server.url} cannot be read (timed out)"
    assert len(server.requests) == NUM_ATTEMPTS


def test_a_redirect_is_followed_also_when_a_download_continues(
    server: FileServer, file: Path
) -> None:
    redirect = status(302, Location="/elsewhere")
    server.next_answers = [redirect, server.send(num_bytes=100_000), redirect]
    download(server.url, file, SHA256)
    assert [one.target for one in server.requests] == [f"/{NAME}", "/elsewhere"] * 2
    assert server.ranges() == [None, None, "bytes=100000-", "bytes=100000-"]
    assert file.read_bytes() == CONTENT


def test_redirects_in_a_circle_are_refused_in_one_line(server: FileServer, file: Path) -> None:
    server.next_answers = [status(302, Location=f"/{NAME}")] * 20
    message = refusal(RefusedError, server.url, file)
    assert message.startswith(f"{server.url} answered 302 The HTTP server returned a redirect")


def test_an_absent_file_is_asked_for_once_and_the_secret_in_its_address_is_not_shown(
    server: FileServer, file: Path
) -> None:
    server.next_answers = [status(404)]
    message = refusal(RefusedError, f"{server.url}?token=secret", file)
    assert message == f"{server.url} answered 404 Not Found"
    assert server.requests[0].target == f"/{NAME}?token=secret"
    assert len(server.requests) == 1


def test_a_password_in_the_address_is_sent_and_neither_shown_nor_redirected(
    server: FileServer, file: Path
) -> None:
    server.next_answers = [status(302, Location="/elsewhere"), status(401)]
    url = server.url.replace("//", "//me:pass%20word@")
    message = refusal(RefusedError, url, file)
    assert message == f"{server.url} answered 401 Unauthorized"
    fields = [one.headers.get("Authorization") for one in server.requests]
    assert fields == ["Basic bWU6cGFzcyB3b3Jk", None]  # base64 of me:pass word


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_overloaded_server_is_asked_again(server: FileServer, file: Path, code: int) -> None:
    server.next_answers = [status(code), status(code)]
    download(server.url, file, SHA256)
    assert len(server.requests) == 3
    server.next_answers = [status(code)] * NUM_ATTEMPTS
    file.unlink()
    assert f"{server.url} answered {code} " in refusal(DownloadError, server.url, file)


def test_the_pauses_between_attempts_grow() -> None:
    assert list(PAUSES_S) == sorted(set(PAUSES_S))
    assert sum(PAUSES_S) < 20


def test_a_proxy_is_used_unless_no_proxy_names_the_host(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    download(f"http://weights.invalid/{NAME}", file, SHA256)
    assert [one.target for one in server.requests] == [f"http://weights.invalid/{NAME}"]
    file.unlink()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    download(server.url, file, SHA256)
    assert server.requests[-1].target == f"/{NAME}"


def test_an_https_download_goes_through_https_proxy(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.address)
    server.next_answers = [status(407)] * NUM_ATTEMPTS
    message = refusal(DownloadError, f"https://weights.invalid/{NAME}", file)
    assert "Tunnel connection failed: 407" in message
    asked = {(one.method, one.target) for one in server.requests}
    assert asked == {("CONNECT", "weights.invalid:443")}


@pytest.mark.parametrize("has_length", [True, False])
def test_a_terminal_shows_how_much_is_received(
    server: FileServer, file: Path, monkeypatch: pytest.MonkeyPatch, has_length: bool
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr("training.progress.console", terminal)
    server.next_answers = [server.send(has_length=has_length)]
    download(server.url, file, SHA256)
    assert ("300/300" if has_length else "300/?") in screen.getvalue()
    assert file.read_bytes() == CONTENT


def start(server: FileServer, file: Path) -> subprocess.Popen[str]:
    """Start a download in another process."""
    return subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, server.url, str(file), SHA256],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_two_processes_one_downloads_and_the_other_waits_and_uses_the_file(
    server: FileServer, file: Path
) -> None:
    rest = threading.Event()

    def send_slowly(handler: BaseHTTPRequestHandler) -> None:
        rest.wait(60)
        server.send()(handler)

    server.next_answers = [send_slowly]
    with start(server, file) as first:
        wait_until(lambda: len(server.requests) == 1)
        with start(server, file) as second:
            assert second.stderr is not None
            line = second.stderr.readline()
            rest.set()
            assert (first.wait(60), second.wait(60)) == (0, 0), second.stderr.read()
    assert line == f"Another process is downloading {NAME}: waiting for it\n"
    assert len(server.requests) == 1
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_a_partial_file_that_the_next_one_continues(
    server: FileServer, file: Path, number: signal.Signals
) -> None:
    with released_at_the_end() as event:
        server.next_answers = [server.send(num_bytes=150_000, wait=event)]
        with start(server, file) as process:
            # Less than a buffer can be missing in the file after a SIGKILL.
            wait_until(lambda: part_of(file).is_file() and part_of(file).stat().st_size > 100_000)
            process.send_signal(number)
            process.wait(60)
    size = part_of(file).stat().st_size
    assert part_of(file).read_bytes() == CONTENT[:size]
    assert not file.exists()
    download(server.url, file, SHA256)
    assert server.ranges() == [None, f"bytes={size}-"]
    assert file.read_bytes() == CONTENT


def test_a_server_that_offers_the_file_is_reachable(server: FileServer) -> None:
    assert is_reachable(server.url)
    assert server.requests[-1].headers["Range"] == "bytes=0-0"
    server.next_answers.append(status(404))
    assert not is_reachable(server.url)


def test_a_server_that_does_not_answer_is_not_reachable(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.download.REACHABLE_S", 0.2)
    is_over = threading.Event()
    server.next_answers.append(stall(is_over))
    assert not is_reachable(server.url)
    is_over.set()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not is_reachable(f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth")
    assert not is_reachable("http://\udce9@127.0.0.1/file.pth")  # not UTF-8 in the environment
