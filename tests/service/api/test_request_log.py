"""The id and the log line of each request."""

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.request_log import RequestLog
from service.logs import RequestIdFilter
from tests.service.conftest import BrokenEmbedder, LogTo, Run
from tests.service.pictures import picture, problem, upload

RANDOM_ID = re.compile(r"[0-9a-f]{32}")


def id_of(response: httpx.Response) -> str:
    (id,) = response.headers.get_list("x-request-id")
    return str(id)


def lines(stream_text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream_text.splitlines()]


@pytest.mark.parametrize("id", ["a", "A.b_c-9", 64 * "x"])
def test_a_short_and_plain_id_of_the_client_is_taken_over(client: httpx.Client, id: str) -> None:
    assert id_of(client.get("/livez", headers={"X-Request-Id": id})) == id


@pytest.mark.parametrize("id", ["", 65 * "x", "a b", "a\tb", "<script>", "a,b"])
def test_another_id_is_replaced(client: httpx.Client, id: str) -> None:
    assert RANDOM_ID.fullmatch(id_of(client.get("/livez", headers={"X-Request-Id": id})))


def test_two_ids_are_replaced_by_one(client: httpx.Client) -> None:
    headers = [("X-Request-Id", "a"), ("X-Request-Id", "b")]
    assert RANDOM_ID.fullmatch(id_of(client.get("/livez", headers=headers)))


def test_every_request_without_an_id_gets_its_own(client: httpx.Client) -> None:
    ids = {id_of(client.get("/livez")) for _ in range(3)}
    assert len(ids) == 3
    assert all(map(RANDOM_ID.fullmatch, ids))


def test_every_answer_has_the_id(run: Run, tiny_model: Path) -> None:
    with run(embedder=BrokenEmbedder(tiny_model), allowed_origins="https://a.example") as service:
        client = service.client
        client.headers["X-Request-Id"] = "mine"
        preflight = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
        answers = {
            200: client.get("/"),
            400: client.options("/classify", headers=preflight),
            404: client.get("/nothing"),
            405: client.post("/livez"),
            413: client.post("/classify", files=upload(bytes(500_000))),
            500: client.post("/classify", files=upload(picture())),
        }
        for status, response in answers.items():
            assert response.status_code == status, response.text
            assert id_of(response) == "mine"


def test_all_records_of_a_request_have_its_id(
    run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(RequestIdFilter())
    with run(embedder=BrokenEmbedder(tiny_model)) as service:
        for id in ("first", "second"):
            headers = {"X-Request-Id": id}
            service.client.post("/classify", files=upload(picture()), headers=headers)
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    of_request = [(record.name, getattr(record, "request_id", None)) for record in records]
    # The problem, and the traceback.
    loggers = ("service.api.problems", "service.api.request_log")
    assert of_request == [(name, id) for id in ("first", "second") for name in loggers]
    assert "the secret reason" in caplog.text


def test_a_connection_can_be_used_again_after_a_failure(run: Run, tiny_model: Path) -> None:
    with run(embedder=BrokenEmbedder(tiny_model)) as service:
        for _ in range(5):
            response = service.client.post("/classify", files=upload(picture()))
            problem(response, 500, "internal-error")
            (connection,) = service.server.server_state.connections
            assert not connection.transport.is_closing()


def test_an_answer_that_is_cut_off_by_a_failure_ends_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")

    async def send(message: Message) -> None:
        pass

    async def receive() -> Any:
        raise AssertionError

    log = RequestLog(app, is_logging=False, shows_query=False)
    with pytest.raises(RuntimeError, match="in the middle"):
        asyncio.run(log({"type": "http", "headers": []}, receive, send))


def test_the_access_log_has_one_line_per_request_without_queries_and_file_names(
    run: Run, log_to: LogTo
) -> None:
    stream = log_to(log_format="json", log_level="warning")
    with run(access_log=True, log_level="warning") as service:
        headers = {"X-Request-Id": "abc"}
        image = ("secret.png", picture())
        service.client.post("/similar?k=2", files=upload(image), headers=headers)
        problem(
            service.client.post("/classify", files=upload(("secret.txt", b"secret"))),
            415,
            "not-an-image",
        )
        service.client.head("/items?label=secret")
    first, second, third = lines(stream.getvalue())
    duration_ms = first["duration_ms"]
    assert isinstance(duration_ms, float)
    assert duration_ms > 0
    assert first.pop("time")
    assert first == {
        "level": "info",
        "logger": "service.access",
        "message": f"POST /similar 200 in {duration_ms} ms, client 127.0.0.1",
        "request_id": "abc",
        "method": "POST",
        "path": "/similar",
        "status": 200,
        "duration_ms": duration_ms,
        "client": "127.0.0.1",
    }
    assert (second["path"], second["status"]) == ("/classify", 415)
    assert (third["method"], third["path"], third["status"]) == ("HEAD", "/items", 422)
    assert "secret" not in stream.getvalue()


def test_the_access_log_shows_queries_at_level_debug(run: Run, log_to: LogTo) -> None:
    stream = log_to()
    with run(access_log=True, log_level="debug") as service:
        service.client.get("/items?limit=1&label=r%C3%B6d")
    assert "GET /items?limit=1&label=r%C3%B6d 422" in stream.getvalue()


def test_the_access_log_is_off_by_default(run: Run, log_to: LogTo) -> None:
    stream = log_to()
    with run() as service:
        service.client.get("/livez")
    assert not stream.getvalue()


def test_an_address_cannot_forge_a_line(run: Run, log_to: LogTo) -> None:
    stream = log_to()
    with run(access_log=True) as service:
        service.client.get("/a%0AGET%20/b%00%E2%80%A8")
    (line,) = stream.getvalue().splitlines()
    assert "GET /a%0AGET%20/b%00%E2%80%A8 404 in" in line


def test_the_access_log_names_the_client_of_a_trusted_proxy(run: Run, log_to: LogTo) -> None:
    stream = log_to()
    with run(access_log=True) as service:
        service.client.get("/livez", headers={"X-Forwarded-For": "203.0.113.7"})
    assert stream.getvalue().endswith("client 203.0.113.7\n")
