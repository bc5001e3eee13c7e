"""Requests that wait: they are dropped when nobody waits for their answer any more."""

import gc
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import HeldEmbedder, Run, Service
from tests.service.figures import figure
from tests.service.pictures import detail_of, picture, upload, wait_until
from tests.service.raw_http import connected, post


class NotingEmbedder(HeldEmbedder):
    """It notes how many images each batch has."""

    def __init__(self, model_directory: Path):
        super().__init__(model_directory)
        self.sizes: list[int] = []

    def embed(self, squares):  # type: ignore[no-untyped-def]
        if self.is_tried_out:
            self.sizes.append(len(squares))
        return super().embed(squares)


@contextmanager
def held(run: Run, model: Path, **settings: object) -> Iterator[tuple[Service, NotingEmbedder]]:
    """A service that works on one image until the end of the block, or until it is let go on."""
    embedder = NotingEmbedder(model)
    with run(embedder=embedder, **settings) as service, ThreadPoolExecutor(1) as threads:
        try:
            taken = threads.submit(service.client.post, "/classify", files=upload(picture()))
            wait_until(embedder.has_begun.is_set)
            yield service, embedder
        finally:
            embedder.may_go_on.set()
        assert taken.result().status_code == 200


@pytest.mark.parametrize("path", ["/classify", "/similar", "/features"])
def test_a_request_that_waits_too_long_is_refused_while_the_network_is_still_busy(
    run: Run, tiny_model: Path, path: str
) -> None:
    with held(run, tiny_model, max_wait_s=0.5) as (service, embedder):
        start_s = time.monotonic()
        response = service.client.post(path, files=upload(picture(), picture()))
        assert "has waited for 0.5 s" in detail_of(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert time.monotonic() - start_s >= 0.5
        assert not embedder.may_go_on.is_set()
        assert figure(service.client, "dropped_images_total", reason="expired") == 2
        assert figure(service.client, "waiting_images") == 1


def test_the_images_of_a_client_that_has_gone_do_not_reach_the_network(
    run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with held(run, tiny_model, max_wait_s=1000) as (service, embedder):
        with connected(service) as connection:
            head, body = post("/similar", picture(), picture(), picture())
            connection.sendall(head + body)
            wait_until(lambda: service.engine.admission.num_waiting == 4)
        wait_until(lambda: service.engine.admission.num_waiting == 1)
        assert figure(service.client, "dropped_images_total", reason="disconnected") == 3
        embedder.may_go_on.set()
        assert service.client.post("/classify", files=upload(picture())).status_code == 200
        assert embedder.sizes == [1, 1]
    assert "never retrieved" not in caplog.text
    assert "was destroyed" not in caplog.text


def test_a_client_that_goes_while_its_image_is_worked_on_gives_its_place_back(
    run: Run, tiny_model: Path
) -> None:
    embedder = NotingEmbedder(tiny_model)
    with run(embedder=embedder) as service:
        try:
            with connected(service) as connection:
                head, body = post("/classify")
                connection.sendall(head + body)
                wait_until(embedder.has_begun.is_set)
            wait_until(lambda: service.engine.admission.num_waiting == 0)
            assert not embedder.may_go_on.is_set()
        finally:
            embedder.may_go_on.set()
        assert service.client.post("/classify", files=upload(picture())).status_code == 200


def test_many_clients_that_go_leave_nothing_behind(run: Run, tiny_model: Path) -> None:
    with held(run, tiny_model, max_wait_s=1000, max_waiting=100) as (service, _):
        for number in range(30):
            with connected(service) as connection:
                head, body = post("/classify")
                connection.sendall(head + body if number % 3 else head + body[:50])
                if number % 3 == 1:
                    wait_until(lambda: service.engine.admission.num_waiting > 1)
        wait_until(lambda: service.engine.admission.num_waiting == 1)
        wait_until(lambda: service.engine.admission.num_uploading == 0)
        assert service.client.get("/items/1/similar").status_code == 200
        assert figure(service.client, "waiting_images") == 1
        assert figure(service.client, "uploading_requests") == 0


def test_a_search_by_an_item_has_a_deadline_too(client: httpx.Client) -> None:
    assert client.get("/items/1/similar", headers={"X-Request-Timeout": "60"}).status_code == 200
    response = client.get("/items/1/similar", headers={"X-Request-Timeout": "-1"})
    assert "positive number" in detail_of(response, 422, "invalid-request")


def test_a_service_that_stops_ends_the_requests_that_still_wait(
    run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their images are not started. Only the batch that is running is waited for."""
    caplog.set_level(logging.DEBUG)
    embedder = NotingEmbedder(tiny_model)

    def ask(url: str) -> int | None:
        try:
            return httpx.post(f"{url}/similar", files=upload(picture()), timeout=60).status_code
        except httpx.TransportError:
            return None

    with (
        ThreadPoolExecutor(5) as threads,
        run(embedder=embedder, max_wait_s=1000, shutdown_s=0) as service,
    ):
        asked = [threads.submit(ask, service.url)]
        wait_until(embedder.has_begun.is_set)
        asked += [threads.submit(ask, service.url) for _ in range(4)]
        wait_until(lambda: service.engine.admission.num_waiting == 5)
        service.server.should_exit = True
        statuses = [one.result() for one in asked]
        embedder.may_go_on.set()
    assert 200 not in statuses
    assert embedder.sizes == [1]
    gc.collect()
    for text in ("never retrieved", "was destroyed", "never awaited"):
        assert text not in caplog.text
