"""HEAD, and addresses with a slash at the end."""

import asyncio
import socket
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from service.api.addresses import HeadAsGet
from tests.service.conftest import Service
from tests.service.pictures import detail_of

PAGES = ["/", "/docs", "/openapi.json", "/docs/static/swagger-ui.css", "/web/app.js"]


def test_every_address_answers_head_as_get_without_content(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    addresses = [path.replace("{id}", "1") for path, methods in paths.items() if "get" in methods]
    assert {"/items", "/items/1", "/items/1/thumbnail", "/livez", "/info"} <= set(addresses)
    for address in [*addresses, *PAGES]:
        get, head = client.get(address), client.head(address)
        assert get.status_code != 405
        assert head.status_code == get.status_code, address
        assert head.headers["content-type"] == get.headers["content-type"]
        if address != "/metrics":  # its length changes from one request to the next
            assert head.headers["content-length"] == str(len(get.content))
        assert not head.content


def test_head_is_not_listed_beside_get(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path, methods in paths.items() if "head" in methods]


def test_the_server_sends_nothing_after_the_header_of_an_answer_to_head(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    request = f"HEAD /web/app.js HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    header, end, content = answer.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 200 ")
    assert (end, content) == (b"\r\n\r\n", b"")


def test_the_middleware_removes_the_content_for_any_server() -> None:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "HEAD", "headers": []}
    asyncio.run(HeadAsGet(PlainTextResponse("content"))(scope, receive, send))
    assert (b"content-length", b"7") in messages[0]["headers"]
    assert [message["body"] for message in messages[1:]] == [b""]
    assert scope["method"] == "HEAD"  # the server reads it after the application has answered


def test_head_is_refused_where_get_is_refused(client: httpx.Client) -> None:
    assert client.head("/classify").status_code == 405
    assert client.head("/classify").headers["allow"] == "POST"


def test_the_allowed_methods_of_an_address_contain_head_if_they_contain_get(
    client: httpx.Client,
) -> None:
    for address in ("/livez", "/"):
        assert client.post(address).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", "/similar/"),
        ("GET", "/items/"),
        ("GET", "/items/1/"),
        ("GET", "/items/1/thumbnail/"),
        ("GET", "/docs/"),
        ("GET", "/livez//"),
    ],
)
def test_an_address_with_a_slash_at_the_end_is_not_found_and_the_right_one_is_named(
    client: httpx.Client, method: str, address: str
) -> None:
    detail = detail_of(client.request(method, f"{address}?k=1"), 404, "not-found")
    assert f"use {address.rstrip('/')}, without the slash at the end" in detail


def test_the_named_address_has_no_root_path(client: httpx.Client) -> None:
    answer = client.get("/items/", headers={"X-Forwarded-Prefix": "/lookalike"})
    assert "GET /items/: " in detail_of(answer, 404, "not-found")


@pytest.mark.parametrize("address", ["/nothing/", "/nothing", "/items/x/y/"])
def test_no_address_is_named_for_an_unknown_one(client: httpx.Client, address: str) -> None:
    assert "without the slash" not in detail_of(client.get(address), 404, "not-found")
