"""Binding an address, and draining."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.server import bind
from tests.service.conftest import HeldEmbedder, Run
from tests.service.pictures import picture, problem, upload, wait_until
from training.errors import UserError


def test_bind_takes_a_free_port() -> None:
    with bind("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
    assert host == "127.0.0.1"
    assert port > 0


def test_bind_refuses_a_port_that_is_taken_and_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1, port {port}: .*pass another --port"):
            bind("127.0.0.1", port)


def test_a_service_asked_to_stop_turns_away_but_finishes_the_requests_it_has(
    run: Run, tiny_model: Path
) -> None:
    embedder = HeldEmbedder(tiny_model)
    with run(embedder=embedder, drain_s=1.0) as service, ThreadPoolExecutor(1) as threads:
        try:
            begun = threads.submit(service.client.post, "/classify", files=upload(picture()))
            assert embedder.has_begun.wait(60)
            service.server.should_exit = True
            wait_until(lambda: service.engine.is_draining)
            problem(service.client.get("/readyz"), 503, "draining")
        finally:
            embedder.may_go_on.set()
        assert begun.result().status_code == 200
