"""Bodies that are too large, and bodies that arrive too slowly."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.api import body_limit
from service.api.body_limit import BodyLimit
from service.api.problems import ProblemError, ProblemResponse
from service.settings import Settings
from tests.service.conftest import LIMITS
from tests.service.pictures import detail_of, problem, upload

TOO_LARGE = b"\0" * (LIMITS["max_request_bytes"] + 1)


async def count_bytes(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the number of bytes that it received."""
    try:
        num_bytes = len(await Request(scope, receive).body())
    except ProblemError as error:
        return await ProblemResponse.of(error)(scope, receive, send)
    await PlainTextResponse(str(num_bytes))(scope, receive, send)


@pytest.mark.parametrize("has_length", [True, False])
def test_a_request_of_exactly_the_most_bytes_is_accepted(has_length: bool) -> None:
    async def post(num_bytes: int) -> httpx.Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(num_bytes):
                yield b"x"

        transport = httpx.ASGITransport(
            BodyLimit(count_bytes, Settings.model_validate({"max_request_bytes": 10}))
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/", content=b"x" * num_bytes if has_length else chunks())

    assert asyncio.run(post(10)).text == "10"
    problem(asyncio.run(post(11)), 413, "too-many-bytes")


def test_a_large_request_is_refused_by_its_content_length(client: httpx.Client) -> None:
    response = client.post("/classify", files=upload(TOO_LARGE))
    assert "400,000" in detail_of(response, 413, "too-many-bytes")


def test_a_client_that_reads_only_after_sending_gets_the_refusal(client: httpx.Client) -> None:
    request = client.build_request("POST", "/classify", files=upload(TOO_LARGE))
    body = request.read()
    response = client.post(
        "/classify",
        content=(body for _ in range(50)),  # without a Content-Length
        headers={"Content-Type": request.headers["Content-Type"]},
    )
    problem(response, 413, "too-many-bytes")


def test_an_endless_request_is_refused_while_it_arrives(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limit, "LINGER_S", 0.2)
    request = client.build_request("POST", "/classify", files=upload(TOO_LARGE))
    head = (
        f"POST /classify HTTP/1.1\r\nHost: {client.base_url.host}\r\n"
        f"Content-Type: {request.headers['Content-Type']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = request.read()
    chunk = b"%x\r\n%b\r\n" % (len(body), body)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head.encode())
        answers: list[bytes] = []
        reader = threading.Thread(target=lambda: answers.append(connection.recv(65536)))
        reader.start()
        with contextlib.suppress(ConnectionError):  # raised when the server closes the connection
            while True:
                connection.sendall(chunk)
        reader.join()
    assert answers[0].startswith(b"HTTP/1.1 413 ")
