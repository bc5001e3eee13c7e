"""Bodies that are too large, and bodies that arrive too slowly."""

import asyncio
import contextlib
import socket
import threading
import time
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
from tests.service.conftest import LIMITS, Run, Service
from tests.service.pictures import detail_of, picture, problem, upload, wait_until
from tests.service.raw_http import Answer, connected, is_closed, post, receive

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


def dripped(service: Service, pause_s: float) -> tuple[Answer, int]:
    """The answer to a client that sends single bytes with pauses, and their number."""
    head, body = post("/classify")
    with connected(service) as connection:
        connection.sendall(head)
        answers: list[Answer] = []
        reader = threading.Thread(target=lambda: answers.append(receive(connection)))
        reader.start()
        num_sent = 0
        with contextlib.suppress(ConnectionError):
            while reader.is_alive():
                assert num_sent * pause_s < 20, "the client is not cut off"
                connection.sendall(body[num_sent : num_sent + 1])
                num_sent += 1
                time.sleep(pause_s)
        reader.join()
        assert is_closed(connection)
    return answers[0], num_sent


@pytest.mark.parametrize(
    ("settings", "grace_s"),
    [
        pytest.param({"upload_s": 1.0, "min_upload_rate": 0}, 1000, id="too long"),
        pytest.param({"upload_s": 1000, "min_upload_rate": 1000}, 1.0, id="too slow"),
    ],
)
def test_a_slow_client_holds_no_place_and_is_cut_off(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float], grace_s: float
) -> None:
    monkeypatch.setattr(body_limit, "GRACE_S", grace_s)
    with run(max_images=1, max_waiting=1, **settings) as service:
        outcomes: list[tuple[Answer, int]] = []
        slow = threading.Thread(target=lambda: outcomes.append(dripped(service, 0.05)))
        start_s = time.monotonic()
        slow.start()
        wait_until(lambda: service.engine.admission.num_uploading == 1)
        assert service.engine.admission.num_waiting == 0
        assert service.client.post("/classify", files=upload(picture())).status_code == 200
        slow.join()
        ((answer, num_sent),) = outcomes
        assert time.monotonic() - start_s >= 1.0
        assert answer.status == 408
        assert answer.content["type"] == "urn:lookalike:problem:too-slow"
        assert answer.headers["connection"] == "close"
        assert num_sent > 1
        wait_until(lambda: service.engine.admission.num_uploading == 0)


def test_a_client_that_sends_nothing_is_cut_off_too(run: Run) -> None:
    head, _ = post("/classify")
    with run(upload_s=0.3) as service, connected(service) as connection:
        connection.sendall(head)
        answer = receive(connection)
        assert (answer.status, is_closed(connection)) == (408, True)
        assert "only 0 bytes of the request arrived" in answer.content["detail"]


def test_a_body_that_arrives_with_the_least_rate_is_accepted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole body takes longer than the grace."""
    monkeypatch.setattr(body_limit, "GRACE_S", 1.0)
    head, body = post("/classify")
    with run(min_upload_rate=len(body) // 8) as service, connected(service) as connection:
        connection.sendall(head)
        size = len(body) // 8 + 1
        for start in range(0, len(body), size):
            connection.sendall(body[start : start + size])
            time.sleep(0.2)
        assert receive(connection).status == 200


def test_only_some_bodies_may_arrive_at_the_same_time(run: Run) -> None:
    head, body = post("/classify")
    with (
        run(max_uploads=1) as service,
        connected(service) as first,
        connected(service) as second,
    ):
        first.sendall(head)
        wait_until(lambda: service.engine.admission.num_uploading == 1)
        second.sendall(head)
        answer = receive(second)
        assert answer.status == 429
        assert "1 requests are arriving" in answer.content["detail"]
        first.sendall(body)
        assert receive(first).status == 200
        assert service.client.post("/classify", files=upload(picture())).status_code == 200
