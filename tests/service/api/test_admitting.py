"""Requests whose clients do not wait for the answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.conftest import HeldEmbedder, Run, Service
from tests.service.pictures import picture, problem, upload, wait_until
from tests.service.raw_http import connected, post


class CountingEmbedder(HeldEmbedder):
    """A held network that counts its images."""

    num_images = 0

    def prepare(self) -> None:
        self.num_images += 1
        super().prepare()


@pytest.fixture
def embedder(tiny_model: Path) -> Iterator[CountingEmbedder]:
    held = CountingEmbedder(tiny_model)
    yield held
    held.may_go_on.set()


def dropped(service: Service, reason: str) -> bool:
    line = f'lookalike_dropped_images_total{{reason="{reason}"}} 1.0'
    return line in service.client.get("/metrics").text


def test_a_client_that_goes_away_is_dropped_before_the_network(
    run: Run, embedder: CountingEmbedder
) -> None:
    with run(embedder=embedder, max_wait_s=60) as service, ThreadPoolExecutor(1) as threads:
        try:
            first = threads.submit(service.client.post, "/classify", files=upload(picture()))
            assert embedder.has_begun.wait(60)
            with connected(service) as connection:
                head, body = post("/classify")
                connection.sendall(head + body)
                wait_until(lambda: service.engine.admission.num_waiting == 2)
            wait_until(lambda: dropped(service, "disconnected"))
            assert service.engine.admission.num_waiting == 1
        finally:
            embedder.may_go_on.set()
        assert first.result().status_code == 200
        assert embedder.num_images == 1


def test_a_request_that_waits_too_long_is_refused_while_the_batch_before_it_still_runs(
    run: Run, embedder: CountingEmbedder
) -> None:
    with run(embedder=embedder, max_wait_s=1.0) as service, ThreadPoolExecutor(1) as threads:
        try:
            first = threads.submit(service.client.post, "/classify", files=upload(picture()))
            assert embedder.has_begun.wait(60)
            response = service.client.post("/classify", files=upload(picture()))
            assert int(response.headers["retry-after"]) >= 1
            problem(response, 429, "overloaded")
            assert not first.done()
            assert dropped(service, "expired")
        finally:
            embedder.may_go_on.set()
        assert first.result().status_code == 200
