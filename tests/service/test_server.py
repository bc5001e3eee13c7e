"""Binding an address, connections, and draining."""

import asyncio
import http.client
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.server import bind, metrics_server
from tests.service.conftest import HeldEmbedder, Run, Service
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


def test_a_connection_to_a_bound_socket_sends_small_answers_at_once() -> None:
    """This is asyncio's own loop, which looks at the protocol of the socket. uvloop does not."""

    async def accept_one() -> socket.socket:
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.set_result(transport.get_extra_info("socket"))

        with bind("127.0.0.1", 0) as listener:
            async with await loop.create_server(Accepting, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                connection: socket.socket = await accepted
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
        return connection

    asyncio.run(accept_one())


def test_answers_on_one_connection_do_not_wait_for_each_other(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    connection, durations_s = http.client.HTTPConnection(host, int(port), timeout=60), []
    for _ in range(40):
        start_s = time.perf_counter()
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b'{"status":"alive"}'
        durations_s.append(time.perf_counter() - start_s)
    for open_connection in service.server.server_state.connections:
        accepted = open_connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()
    # An answer that waits for a delayed acknowledgement takes 40 ms. A busy machine delays some.
    fastest_half_s = sorted(durations_s)[:20]
    assert statistics.median(fastest_half_s) < 0.02


def test_the_server_uses_uvloop_and_httptools_if_they_are_installed(service: Service) -> None:
    uvloop, httptools = pytest.importorskip("uvloop"), pytest.importorskip("httptools")
    service.client.get("/livez")
    connection = next(iter(service.server.server_state.connections))
    assert isinstance(connection.loop, uvloop.Loop)
    assert isinstance(connection.parser, httptools.HttpRequestParser)  # type: ignore[union-attr]


def test_an_idle_connection_is_closed_after_the_time_of_the_setting(run: Run) -> None:
    with run(keep_alive_s=1) as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" not in answer.lower()


def test_by_default_a_connection_stays_open_for_longer_than_in_the_pools_of_proxies(
    service: Service,
) -> None:
    assert service.server.config.timeout_keep_alive > 60


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


def test_the_figures_can_have_a_port_of_their_own(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with run(metrics_port=port) as service:
        settings, metrics = service.engine.settings, service.app.state.metrics
        with metrics_server(settings, metrics):
            figures = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
            assert "lookalike_index_items 18.0" in figures
            with pytest.raises(UserError, match=f"port {port}: .*LOOKALIKE_METRICS_PORT"):
                metrics_server(settings, metrics).__enter__()
        problem(service.client.get("/metrics"), 404, "not-found")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60)


def test_without_a_port_of_their_own_the_figures_have_no_server(service: Service) -> None:
    with metrics_server(service.engine.settings, service.app.state.metrics):
        assert service.client.get("/metrics").status_code == 200
