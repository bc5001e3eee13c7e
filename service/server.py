"""The HTTP server: uvicorn with a socket that is already bound.

The server reports when it starts to accept connections. When it is asked to stop, it still answers
requests for some time before it closes its connections.
"""

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from service.engine import Engine
from training.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket to this address, but do not listen yet.

    Raises UserError if the address cannot be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
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


class Server(uvicorn.Server):
    """A uvicorn server that calls `on_listening` when it starts to accept connections.

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
                log_level="info" if settings.access_log else "warning",
                access_log=settings.access_log,
                server_header=False,
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
        # it, so that the process ends normally.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        super().run(sockets)
