"""The address, the key, the deadline and the proxies of a connection."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from service.client import Client, ServiceError
from service.client.connection import Connection
from tests.service.client.conftest import Connect
from tests.service.client.fakes import KEY, PNG, URL, FakeService, problem
from tests.service.conftest import Service
from training.errors import UserError

SECRET = "s3cret-key"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.mark.parametrize(
    "url",
    ["", "photos.example", "ftp://photos.example", "http://", "http://h/?a=1", "http://h:x", "/a"],
)
def test_a_wrong_url_is_refused(connect: Connect, url: str) -> None:
    with pytest.raises(UserError, match="URL"):
        connect(url)


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@photos.example", f"me:{SECRET}@photos"])
def test_a_url_with_a_password_is_refused_and_not_shown(connect: Connect, url: str) -> None:
    with pytest.raises(UserError) as raised:
        connect(url)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("key", ["", f"{SECRET}\n", f" {SECRET}", f"{SECRET}\r\nX: y", "\ud800"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(connect: Connect, key: str) -> None:
    with pytest.raises(UserError) as raised:
        connect(URL, key=key)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("inf")},
        {"timeout_s": float("nan")},
        {"max_retries": -1},
        {"max_wait_s": -1},
        {"max_wait_s": float("nan")},
    ],
)
def test_limits_out_of_range_are_refused(connect: Connect, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        connect(URL, **options)


def test_the_key_is_sent_but_never_shown(connect: Connect) -> None:
    service = FakeService([problem("unauthorized", 401)])
    client = connect(URL, key=SECRET, transport=service.transport)
    with pytest.raises(ServiceError) as raised:
        client.info()
    assert service.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    shown = [client, Connection(URL, SECRET), raised.value, service.requests[0].headers]
    assert SECRET not in " ".join(f"{one!r} {one!s}" for one in shown)


def test_a_key_may_have_any_letters(connect: Connect) -> None:
    service = FakeService()
    connect(URL, key="schlüssel", transport=service.transport).is_ready()
    sent = dict(service.requests[0].headers.raw)[b"Authorization"]
    assert sent == "Bearer schlüssel".encode()


def test_without_a_key_none_is_sent(connect: Connect) -> None:
    service = FakeService()
    connect(URL, transport=service.transport).is_ready()
    assert "Authorization" not in service.requests[0].headers


def test_the_deadline_is_sent_and_the_answer_has_a_little_more_time(connect: Connect) -> None:
    service = FakeService()
    connect(URL, timeout_s=2.5, transport=service.transport).classify(PNG)
    (request,) = service.requests
    assert request.headers["X-Request-Timeout"] == "2.5"
    assert request.extensions["timeout"]["read"] == 3.5
    assert request.extensions["timeout"]["connect"] == 2.5


def test_a_url_may_have_a_path(connect: Connect) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        status = "ready" if str(request.url) == f"{URL}/look/readyz" else "elsewhere"
        return httpx.Response(200, json={"status": status})

    for url in (f"{URL}/look", f"{URL}/look/"):
        assert connect(url, transport=httpx.MockTransport(answer)).is_ready()


def test_this_machine_is_not_asked_through_a_proxy(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for url in (service.url, service.url.replace("127.0.0.1", "localhost")):
        assert connect(url, max_retries=0).is_ready()


def test_other_machines_are_asked_through_the_proxy(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "18")
            self.end_headers()
            self.wfile.write(b'{"status":"ready"}')

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
            monkeypatch.setenv("NO_PROXY", "")
            assert connect(URL).is_ready()
        finally:
            proxy.shutdown()
            thread.join()
    assert asked == [f"{URL}/readyz"]


def test_the_representation_names_the_address() -> None:
    with Client(URL, key=KEY) as client:
        assert repr(client) == f"Client('{URL}')"
