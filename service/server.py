"""The HTTP server: uvicorn with a socket that is already bound.

The server reports when it starts to accept connections. When it is asked to stop, it still answers
requests for some time before it closes its connections.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from service.engine import Engine
from service.metrics import Metrics
from service.settings import Settings
from training.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket to this address, but do not listen yet.

    Raises UserError if the address cannot be used.
    """
    # If the protocol is not named, asyncio does not set TCP_NODELAY on the connections. Then an
    # answer waits until the client has acknowledged the one before, which can take 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; "
            "pass another --port, or --port 0 for any free port"
        ) from error
    return listener


@contextmanager
def metrics_server(settings: Settings, metrics: Metrics) -> Iterator[None]:
    """Serve the figures on the port `metrics_port` inside the block, if there is one.

    Raises UserError if the port cannot be used.
    """
    host, port = settings.host, settings.metrics_port
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise UserError(
            f"cannot serve the metrics on {host}, port {port}: {error.strerror or error}; "
            f"set LOOKALIKE_METRICS_PORT to another port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Server(uvicorn.Server):
    """A uvicorn server that calls `on_listening` when it starts to accept connections.

    uvicorn chooses the event loop and the HTTP parser: uvloop and httptools, if they are installed.
    To get this loop, call `run`, not `serve`.

    After SIGTERM or Ctrl-C, /readyz answers 503, and new requests are still accepted for `drain_s`
    seconds. Then unfinished requests have `shutdown_s` seconds to finish.
    """

    def __init__(self, app: FastAPI, on_listening: Callable[[], None]):
        self.engine: Engine = app.state.engine
        self.on_listening = on_listening
        settings = self.engine.settings
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",
                log_config=None,  # service/logs.py
                # uvicorn says at level info only that it starts and stops.
                log_level="warning" if settings.log_level == "info" else settings.log_level,
                access_log=False,  # service/api/request_log.py
                proxy_headers=False,  # service/api/forwarding.py
                server_header=False,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=settings.shutdown_s,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self.on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.engine.is_draining = True
        deadline_s = asyncio.get_running_loop().time() + self.engine.settings.drain_s
        while asyncio.get_running_loop().time() < deadline_s and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # After the shutdown, uvicorn raises SIGINT or SIGTERM a second time. These handlers ignore
        # it, so that the process ends normally. Only the main thread receives signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
        super().run(sockets)
