"""Download one large file: checked, resumed after an interruption, and by one process at a time.

During the download, FILE.part holds the received bytes and FILE.part.version the server's ETag or
date of that content. After an error or Ctrl-C both stay, and the next run continues.
"""

import os
import re
import shutil
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, build_opener

from filelock import FileLock, Timeout

from training.errors import UserError
from training.files import file_sha256, sync
from training.progress import Bar, console

TIMEOUT_S = 30.0
"""Longest wait for a connection, and for the next bytes."""
REACHABLE_S = 5.0
"""Longest wait for an answer when it is only asked whether the server offers the file."""
PAUSES_S = (1.0, 3.0, 9.0)
"""Pauses before another attempt. After the last attempt the download fails."""
MIN_PROGRESS_BYTES = 1 << 20
"""After an attempt that received so much more than all before, the pauses begin anew."""
CHUNK_BYTES = 1 << 16
RANGE_NOT_SATISFIABLE = 416
TRANSIENT_STATUSES = frozenset({408, 429, *range(500, 600)})


class DownloadError(UserError):
    """The server cannot be reached, or the connection breaks again and again."""


class RefusedError(DownloadError):
    """The server does not offer the expected file, or the URL is wrong.

    Without a change, another attempt would fail too.
    """


class StorageError(UserError):
    """The folder of the download cannot be written, or has too little space."""


class _BrokenError(Exception):
    """The connection broke, or the server is overloaded: another attempt may succeed."""


def is_intact(file: Path, sha256_start: str) -> bool:
    """Whether the file exists and its SHA-256 starts with these hexadecimal digits."""
    return file.is_file() and file_sha256(file).startswith(sha256_start)


def download(url: str, file: Path, sha256_start: str) -> None:
    """Download an http or https URL to `file`, unless another process does so at the same time.

    `file` appears when it is complete and its SHA-256 starts with `sha256_start`. The variables
    HTTPS_PROXY, HTTP_PROXY and NO_PROXY apply. Raises DownloadError (or its subclass RefusedError)
    or StorageError.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            if is_intact(file, sha256_start):
                return  # another process has just downloaded it
            if not is_intact(part, sha256_start):
                _receive_all(url, part)
                _check(part, url, sha256_start)
            sync(part)
            os.replace(part, file)
            sync(file.parent)
            _version_file(part).unlink(missing_ok=True)
    except OSError as error:
        problem = error.strerror or error
        raise StorageError(f"{error.filename or part} cannot be written ({problem})") from error


def is_reachable(url: str) -> bool:
    """Whether a server offers this file, and answers within REACHABLE_S.

    One byte is asked for, because some servers do not answer HEAD requests.
    """
    try:
        request = _request(url, {"Range": "bytes=0-0"})
        with build_opener().open(request, timeout=REACHABLE_S):
            return True
    except (OSError, HTTPException, ValueError):
        return False


def shown(url: str) -> str:
    """The URL as messages show it: without a password, and without what follows `?`."""
    return re.sub("//[^/]*@", "//", url.partition("?")[0])


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock on the download of this file. If another process has it, wait."""
    lock = FileLock(file.with_name(f"{file.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"Another process is downloading {file.name}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _receive_all(url: str, part: Path) -> None:
    """Complete `part`, in several attempts if the connection breaks."""
    most_bytes, pauses = _num_bytes(part), iter(PAUSES_S)
    while True:
        try:
            return _receive(url, part)
        except _BrokenError as error:
            if _num_bytes(part) >= most_bytes + MIN_PROGRESS_BYTES:
                most_bytes, pauses = _num_bytes(part), iter(PAUSES_S)
            pause_s = next(pauses, None)
            if pause_s is None:
                raise DownloadError(str(error)) from error
            console.print(f"{error}: trying again in {pause_s:.0f} s")
            time.sleep(pause_s)


def _receive(url: str, part: Path) -> None:
    """Append the bytes that `part` lacks. If the server cannot continue there, begin anew.

    Raises _BrokenError or DownloadError for the server, and StorageError or OSError for the disk.
    """
    response, num_bytes = _open(url, part, _num_bytes(part))
    with response:
        total = None if response.length is None else num_bytes + response.length
        _check_space(part, total or 0)
        with (
            part.open("ab" if num_bytes else "wb") as stream,
            Bar("Downloading", total and total // 1000, "kB") as bar,
        ):
            if not num_bytes:
                _version_file(part).write_text(_version(response), "utf-8")
            bar.advance(num_bytes // 1000)
            while chunk := _read(response, url):
                stream.write(chunk)
                num_bytes += len(chunk)
                bar.advance(num_bytes // 1000 - bar.num_done)
    if total is not None and num_bytes < total:
        raise _BrokenError(
            f"{shown(url)} closed the connection after {num_bytes:,} of {total:,} bytes"
        )


def _open(url: str, part: Path, num_bytes: int) -> tuple[HTTPResponse, int]:
    """Ask for the bytes after the first `num_bytes`.

    Returns the response and the position of its first byte in the file. The position is 0 if the
    server does not support ranges, or has other content than before.
    """
    headers = {}
    if num_bytes:
        headers["Range"] = f"bytes={num_bytes}-"
        file = _version_file(part)
        version = file.read_text("ascii", "replace") if file.is_file() else ""
        if version and version.isascii() and version.isprintable():  # a power cut can damage it
            headers["If-Range"] = version
    with _network_errors(url):
        try:
            # A new opener reads the variables of the proxies again.
            response: HTTPResponse = build_opener().open(_request(url, headers), timeout=TIMEOUT_S)
        except HTTPError as error:
            if error.code == RANGE_NOT_SATISFIABLE and num_bytes:
                error.close()
                return _open(url, part, 0)
            raise
    if not num_bytes or response.status == 200:
        return response, 0
    begin = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not begin or int(begin[1]) != num_bytes:
        response.close()
        return _open(url, part, 0)
    return response, num_bytes


def _request(url: str, headers: Mapping[str, str]) -> Request:
    """A request for a URL, which may contain a user name and a password: https://me:word@host/."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host).geturl(), headers=dict(headers))
    request.add_header("User-Agent", "lookalike")
    request.add_header("Accept-Encoding", "identity")
    if login:
        encoded = b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def _read(response: HTTPResponse, url: str) -> bytes:
    with _network_errors(url):
        return response.read1(CHUNK_BYTES)


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turn the errors of a request into _BrokenError or DownloadError."""
    try:
        yield
    except HTTPError as error:
        error.close()
        # The reason has several lines if the server redirects in a circle.
        problem = " ".join(f"{shown(url)} answered {error.code} {error.reason}".split())
        raise (_BrokenError if error.code in TRANSIENT_STATUSES else RefusedError)(
            problem
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        problem = f"{shown(url)} cannot be read ({' '.join(text.split())})"
        raise _kind_of(reason)(problem) from error


def _kind_of(reason: object) -> type[Exception]:
    """The error to raise for the reason why a request failed."""
    if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN:
        return DownloadError  # an unknown host: wrong, or this machine has no network now
    if isinstance(reason, ssl.SSLCertVerificationError | ValueError | InvalidURL | str):
        return RefusedError  # a wrong certificate, or a malformed URL
    return _BrokenError


def _check_space(part: Path, total: int) -> None:
    """Raise StorageError if the disk has no space for a file of `total` bytes."""
    missing = total - _num_bytes(part)
    free = shutil.disk_usage(part.parent).free
    if free < missing:
        raise StorageError(
            f"{part.parent} has {free / 1e6:,.1f} MB of free space, "
            f"but the download needs {missing / 1e6:,.1f} MB"
        )


def _check(part: Path, url: str, sha256_start: str) -> None:
    """Remove the received file and raise RefusedError if its checksum is wrong."""
    actual = file_sha256(part)
    if not actual.startswith(sha256_start):
        num_bytes = _num_bytes(part)
        part.unlink()
        _version_file(part).unlink(missing_ok=True)
        raise RefusedError(
            f"{shown(url)} sent {num_bytes:,} bytes with SHA-256 {actual[: len(sha256_start)]} "
            f"instead of {sha256_start}, which were deleted"
        )


def _version(response: HTTPResponse) -> str:
    """The value for If-Range: a strong ETag, or else the date of the last change, or nothing."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _num_bytes(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
