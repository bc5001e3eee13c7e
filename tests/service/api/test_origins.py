"""CORS: which pages of other origins may read the answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import BrokenEmbedder, HeldEmbedder, Run, Service
from tests.service.pictures import picture, problem, upload

ALLOWED, OTHER = "https://photos.example", "https://other.example"
ALLOW_ORIGIN = "access-control-allow-origin"


@pytest.fixture(scope="module")
def open_service(run: Run) -> Iterator[Service]:
    with run(allowed_origins=f"{ALLOWED}, http://localhost:3000") as service:
        yield service


def preflight(client: httpx.Client, origin: str, method: str = "POST") -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type, x-request-timeout",
    }
    return client.options("/similar", headers=headers)


def test_by_default_no_origin_is_allowed(client: httpx.Client) -> None:
    answer = client.get("/items", headers={"Origin": ALLOWED})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    problem(preflight(client, ALLOWED), 405, "method-not-allowed")


@pytest.mark.parametrize("origin", [ALLOWED, "http://localhost:3000"])
def test_a_listed_origin_may_read(open_service: Service, origin: str) -> None:
    answer = open_service.client.get("/items", headers={"Origin": origin})
    assert answer.headers[ALLOW_ORIGIN] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origin", [OTHER, f"{ALLOWED}:8443", f"{ALLOWED}.evil.example", "http://photos.example", "null"]
)
def test_another_origin_may_not_read(open_service: Service, origin: str) -> None:
    answer = open_service.client.get("/items", headers={"Origin": origin})
    assert answer.status_code == 200
    assert ALLOW_ORIGIN not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_listed_origin_may_send_keys_and_images(open_service: Service, method: str) -> None:
    answer = preflight(open_service.client, ALLOWED, method)
    assert answer.status_code == 200
    assert answer.headers[ALLOW_ORIGIN] == ALLOWED
    assert method in answer.headers["access-control-allow-methods"]


def test_a_refused_preflight_is_a_problem(open_service: Service) -> None:
    for origin, method in ((OTHER, "POST"), (ALLOWED, "PUT")):
        answer = preflight(open_service.client, origin, method)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 400
        assert origin in answer.json()["detail"]
        assert "Origin" in answer.headers["vary"]
        assert answer.headers.get(ALLOW_ORIGIN) == (ALLOWED if origin == ALLOWED else None)


def test_a_star_allows_every_origin_without_credentials(run: Run) -> None:
    with run(allowed_origins="*") as service:
        for answer in (
            service.client.get("/items", headers={"Origin": OTHER}),
            preflight(service.client, OTHER),
        ):
            assert answer.status_code == 200
            assert answer.headers[ALLOW_ORIGIN] == "*"
            assert "access-control-allow-credentials" not in answer.headers


def test_errors_may_be_read_too(run: Run, tiny_model: Path) -> None:
    embedder = BrokenEmbedder(tiny_model)
    with run(embedder=embedder, allowed_origins=ALLOWED, read_key="the-key") as service:
        headers = {"Origin": ALLOWED, "Authorization": "Bearer the-key"}
        client = service.client
        answers = {
            401: client.get("/items", headers={"Origin": ALLOWED}),
            404: client.get("/nothing", headers=headers),
            405: client.post("/livez", headers=headers),
            413: client.post("/classify", files=upload(bytes(500_000)), headers=headers),
            422: client.post("/similar?k=0", files=upload(picture()), headers=headers),
            500: client.post("/classify", files=upload(picture()), headers=headers),
        }
        for status, answer in answers.items():
            assert answer.status_code == status, answer.text
            assert answer.headers[ALLOW_ORIGIN] == ALLOWED
        assert preflight(client, ALLOWED).status_code == 200  # a preflight cannot carry a key


def test_overload_may_be_read_too(run: Run, tiny_model: Path) -> None:
    embedder = HeldEmbedder(tiny_model)
    settings = {"max_images": 1, "max_waiting": 1, "allowed_origins": ALLOWED}
    with run(embedder=embedder, **settings) as service, ThreadPoolExecutor(1) as threads:
        try:
            taken = threads.submit(service.client.post, "/classify", files=upload(picture()))
            assert embedder.has_begun.wait(60)
            refused = service.client.post(
                "/classify", files=upload(picture()), headers={"Origin": ALLOWED}
            )
            problem(refused, 429, "overloaded")
            assert refused.headers[ALLOW_ORIGIN] == ALLOWED
            assert "Retry-After" in refused.headers["access-control-expose-headers"]
        finally:
            embedder.may_go_on.set()
        assert taken.result().status_code == 200
