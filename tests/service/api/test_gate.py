"""The gate: requests that are refused from their headers, before their bodies are sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.api.gate import PATHS
from tests.service.conftest import HeldEmbedder, Run, Service
from tests.service.pictures import detail_of, picture, problem, upload, wait_until
from tests.service.raw_http import connected, post, receive

WRITE_KEY = "key"


@contextmanager
def held(run: Run, model: Path, **settings: object) -> Iterator[Service]:
    """A service that works on one image, and does not finish it inside the block."""
    embedder = HeldEmbedder(model)
    with (
        run(embedder=embedder, write_key=WRITE_KEY, **settings) as service,
        ThreadPoolExecutor(1) as threads,
    ):
        try:
            taken = threads.submit(service.client.post, "/classify", files=upload(picture()))
            wait_until(embedder.has_begun.is_set)
            yield service
        finally:
            embedder.may_go_on.set()
        assert taken.result().status_code == 200


@pytest.fixture(scope="module")
def full(run: Run, tiny_model: Path) -> Iterator[Service]:
    """A service that cannot admit another image."""
    with held(run, tiny_model, max_images=1, max_waiting=1) as service:
        yield service


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}])
@pytest.mark.parametrize("path", PATHS)
def test_an_overloaded_service_refuses_a_request_before_its_body_is_sent(
    full: Service, path: str, headers: dict[str, str]
) -> None:
    head, _ = post(path, Authorization=f"Bearer {WRITE_KEY}", **headers)
    with connected(full) as connection:
        connection.sendall(head)
        answer = receive(connection)
    assert answer.status == 429
    assert answer.content["type"] == "urn:lookalike:problem:overloaded"
    assert "1 images are waiting and at most 1 may wait" in answer.content["detail"]
    assert int(answer.headers["retry-after"]) >= 1


def test_a_client_that_sends_its_body_nevertheless_can_go_on(full: Service) -> None:
    head, body = post("/classify")
    with connected(full) as connection:
        for _ in range(3):
            connection.sendall(head + body)
            assert receive(connection).status == 429
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
        assert receive(connection).content == {"status": "alive"}


def test_other_requests_are_answered_while_the_service_is_overloaded(full: Service) -> None:
    for path in ("/livez", "/readyz", "/info", "/items", "/metrics", "/"):
        assert full.client.get(path).status_code == 200


def test_the_paths_are_those_of_the_uploads(service: Service) -> None:
    content = service.client.get("/openapi.json").json()
    uploads = {
        path
        for path, operations in content["paths"].items()
        if "multipart/form-data" in str(operations.get("post", {}).get("requestBody"))
    }
    assert uploads == set(PATHS)


def test_a_service_is_overloaded_under_a_root_path_too(run: Run, tiny_model: Path) -> None:
    settings = {"max_images": 1, "max_waiting": 1, "root_path": "/photos"}
    with held(run, tiny_model, **settings) as service:
        for path in ("/photos/similar", "/similar"):
            head, _ = post(path)
            with connected(service) as connection:
                connection.sendall(head)
                assert receive(connection).status == 429


def test_after_an_overload_requests_are_answered_again(run: Run, tiny_model: Path) -> None:
    embedder = HeldEmbedder(tiny_model)
    with (
        run(embedder=embedder, max_images=1, max_waiting=2, max_wait_s=1000) as service,
        ThreadPoolExecutor(2) as threads,
    ):
        try:
            taken = [
                threads.submit(service.client.post, "/classify", files=upload(picture()))
                for _ in range(2)
            ]
            wait_until(lambda: service.engine.admission.num_waiting == 2)
            problem(service.client.post("/classify", files=upload(picture())), 429, "overloaded")
        finally:
            embedder.may_go_on.set()
        assert [response.result().status_code for response in taken] == [200, 200]
        assert service.client.post("/classify", files=upload(picture())).status_code == 200


def test_a_service_whose_network_hangs_refuses_uploads_at_once(run: Run, tiny_model: Path) -> None:
    with held(run, tiny_model, hang_s=0.1) as service:
        wait_until(lambda: service.engine.is_hanging)
        head, _ = post("/similar")
        with connected(service) as connection:
            connection.sendall(head)
            answer = receive(connection)
        assert answer.status == 503
        assert answer.content["type"] == "urn:lookalike:problem:not-ready"
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("timeout_s", ["0", "-1", "soon", "", "nan", "inf", "1e999", "5 s", "1,5"])
@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_deadline_is_refused(service: Service, path: str, timeout_s: str) -> None:
    head, _ = post(path, X_Request_Timeout=timeout_s)
    with connected(service) as connection:
        connection.sendall(head)
        answer = receive(connection)
    assert answer.status == 422
    assert answer.content["detail"].startswith("X-Request-Timeout: must be a positive number")


@pytest.mark.parametrize("timeout_s", ["60", "60.5", "1e3", " 60 "])
def test_a_client_may_send_its_own_deadline(client: httpx.Client, timeout_s: str) -> None:
    headers = {"X-Request-Timeout": timeout_s.strip()}
    response = client.post("/classify", files=upload(picture()), headers=headers)
    assert response.status_code == 200


def test_a_deadline_ends_a_request_while_it_is_worked_on(run: Run, tiny_model: Path) -> None:
    with held(run, tiny_model, max_wait_s=1000) as service:
        headers = {"X-Request-Timeout": "0.3"}
        response = service.client.post("/classify", files=upload(picture()), headers=headers)
        detail = detail_of(response, 429, "overloaded")
        assert "the time that its client allows" in detail
        assert int(response.headers["retry-after"]) >= 1


def test_a_deadline_that_would_be_missed_is_refused_from_the_headers(
    run: Run, tiny_model: Path
) -> None:
    with held(run, tiny_model, max_wait_s=1000) as service:
        head, _ = post("/classify", X_Request_Timeout="0.001")
        with connected(service) as connection:
            connection.sendall(head)
            answer = receive(connection)
        assert answer.status == 429
        assert "may wait for 0.001 s" in answer.content["detail"]
