"""The service behind a proxy: root paths, and whose headers are trusted."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import FilePayload
from starlette.types import Receive, Scope, Send

from service.api.forwarding import Forwarding, route_path
from service.settings import Settings
from tests.service.conftest import Browse, Run, Service
from tests.service.pictures import picture, problem, upload, wait_until
from tests.service.reverse_proxy import published

PREFIX = "/lookalike"
HEADER = {"X-Forwarded-Prefix": PREFIX}


@contextmanager
def behind(kind: str, run: Run, service: Service) -> Iterator[str]:
    """The address of a service behind a proxy of this kind."""
    with ExitStack() as stack:
        if kind == "strips and names the path":
            proxy = published(service.url, PREFIX, strips=True, headers=HEADER)
        else:
            other = stack.enter_context(run(root_path=PREFIX))
            proxy = published(other.url, PREFIX, strips=kind == "strips")
        yield stack.enter_context(proxy)


KINDS = ["strips and names the path", "strips", "does not strip"]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_works_under_a_root_path(kind: str, run: Run, service: Service) -> None:
    with behind(kind, run, service) as url, httpx.Client(base_url=url, timeout=60) as client:
        for address in (url, f"{url}/"):
            page = client.get(address)
            assert page.status_code == 200
            (base,) = re.findall(r'<base href="([^"]*)">', page.text)
            assert base == f"{PREFIX}/"
        for address in re.findall(r'(?:src|href)="(web/[^"]+|docs)"', page.text):
            assert client.get(address).status_code == 200
        listed = client.get("items").json()["items"]
        found = client.post("similar", files=upload(picture())).json()["results"][0]["matches"]
        for thumbnail in (listed[0]["thumbnail"], found[0]["thumbnail"]):
            assert thumbnail.startswith(f"{PREFIX}/items/")
            image = client.get(str(httpx.URL(url).join(thumbnail)))
            assert (image.status_code, image.headers["content-type"]) == (200, "image/jpeg")
        problem(client.get("nothing"), 404, "not-found")


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_works_under_a_root_path(kind: str, run: Run, service: Service) -> None:
    with behind(kind, run, service) as url, httpx.Client(timeout=60) as client:
        docs = client.get(f"{url}/docs")
        assert "'unsafe-inline'" in docs.headers["content-security-policy"]
        addresses = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", docs.text)
        assert len(addresses) == 4  # a script, a style sheet, an icon and the description
        for address in map("".join, addresses):
            answer = client.get(str(docs.url.join(address)))
            assert answer.status_code == 200, address
        description = client.get(f"{url}/openapi.json").json()
        assert description["servers"] == [{"url": PREFIX}]


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_searches_and_shows_thumbnails_under_a_root_path(
    kind: str, slash: str, run: Run, service: Service, browse: Browse
) -> None:
    with behind(kind, run, service) as url:
        page = browse(f"{url}{slash}")
        file: FilePayload = {"name": "sky.png", "mimeType": "image/png", "buffer": picture("blue")}
        page.set_input_files("#file", file)
        page.wait_for_selector(".card .distance")
        assert page.locator(".card .label").first.inner_text() == "blue"
        thumbnail = page.locator(".card img").first
        wait_until(lambda: bool(thumbnail.evaluate("image => image.naturalWidth > 0")))
        page.close()


@pytest.mark.parametrize(
    "value",
    [
        '/"><script>',
        "//evil.example",
        "/a//b",
        "/a/../b",
        "/./a",
        "/..",
        "lookalike",
        "https://evil.example/",
        "/a, /b",
        "/a%2fb",
        "/a b",
        "/\u00e9".encode(),
        "/" + 200 * "a",
        "/",
        "",
    ],
)
def test_a_prefix_that_is_not_plain_is_ignored(client: httpx.Client, value: str | bytes) -> None:
    name = "X-Forwarded-Prefix"
    headers = [(name.encode(), value if isinstance(value, bytes) else value.encode())]
    answer = client.get("/items", params={"limit": 1}, headers=headers)
    assert answer.json()["items"][0]["thumbnail"].startswith("/items/")


def test_two_prefixes_are_ignored_because_a_client_may_have_sent_one(client: httpx.Client) -> None:
    headers = [("X-Forwarded-Prefix", "/evil"), ("X-Forwarded-Prefix", PREFIX)]
    answer = client.get("/items", params={"limit": 1}, headers=headers)
    assert answer.json()["items"][0]["thumbnail"].startswith("/items/")


@pytest.mark.parametrize("trusted", ["10.0.0.1", "10.0.0.0/8"])
def test_the_prefix_of_an_untrusted_client_is_ignored(run: Run, trusted: str) -> None:
    with run(forwarded_allow_ips=trusted, root_path="/mine") as service:
        answer = service.client.get("/items", params={"limit": 1}, headers=HEADER)
        assert answer.json()["items"][0]["thumbnail"].startswith("/mine/items/")


def forwarded(
    settings: dict[str, Any], path: str, client: str = "127.0.0.1", **headers: str
) -> Scope:
    """The scope that the application gets for a request."""
    scopes = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)

    async def nothing(*_: object) -> Any:
        raise AssertionError

    sent = {f"x-forwarded-{name}".encode(): value.encode() for name, value in headers.items()}
    scope = {
        "type": "http",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "client": (client, 1),
        "headers": list(sent.items()),
    }
    asyncio.run(Forwarding(app, Settings.model_validate(settings))(scope, nothing, nothing))
    return scopes[0]


@pytest.mark.parametrize(
    ("path", "expected", "route"),
    [
        ("/items", "/lookalike/items", "/items"),
        ("/lookalike/items", "/lookalike/items", "/items"),
        ("/lookalike", "/lookalike/", "/"),
        ("/", "/lookalike/", "/"),
        ("/lookalikes", "/lookalike/lookalikes", "/lookalikes"),
    ],
)
def test_the_path_begins_with_the_root_path(path: str, expected: str, route: str) -> None:
    scope = forwarded({"root_path": PREFIX}, path)
    assert (scope["root_path"], scope["path"]) == (PREFIX, expected)
    assert scope["raw_path"] == expected.encode()
    assert route_path(scope) == route


def test_a_trusted_proxy_names_the_client_and_the_scheme() -> None:
    headers = {"for": "203.0.113.7, 10.1.2.3", "proto": "https"}
    trusting = {"forwarded_allow_ips": "10.0.0.0/8"}
    scope = forwarded(trusting, "/", client="10.1.2.3", **headers)
    assert (scope["scheme"], scope["client"][0]) == ("https", "203.0.113.7")
    scope = forwarded(trusting, "/", client="203.0.113.9", **headers)
    assert (scope["scheme"], scope["client"][0]) == ("http", "203.0.113.9")


def test_a_star_trusts_every_client() -> None:
    trusting = {"forwarded_allow_ips": "*"}
    scope = forwarded(trusting, "/", client="203.0.113.9", prefix="/a/b")
    assert scope["path"] == "/a/b/"
