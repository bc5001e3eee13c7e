"""Requests that no HTTP library sends: without their bodies, or byte by byte."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from tests.service.conftest import PATIENCE_S, Service
from tests.service.pictures import picture, upload


class Answer(NamedTuple):
    """The status, the headers in lower case, and the JSON of an answer."""

    status: int
    headers: dict[str, str]
    content: dict[str, Any]


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    """A connection to a service."""
    url = httpx.URL(service.url)
    assert url.port
    with socket.create_connection((url.host, url.port), timeout=PATIENCE_S) as connection:
        yield connection


def post(path: str, *files: bytes, **headers: str) -> tuple[bytes, bytes]:
    """The bytes of the headers and of the body of an upload. The default is one good image."""
    request = httpx.Request("POST", f"http://test{path}", files=upload(*files or [picture()]))
    body = request.read()
    lines = [f"POST {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode(), body


def receive(connection: socket.socket) -> Answer:
    """Read one answer, whose content must have a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        assert part, f"the connection was closed after {received!r}"
        received += part
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    while len(content) < int(headers.get("content-length", 0)):
        part = connection.recv(65536)
        assert part, "the connection was closed inside of the content"
        content += part
    return Answer(int(first.split()[1]), headers, json.loads(content))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed the connection; waits until it does so."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
