"""uvicorn, on a socket bound beforehand, that says when it listens and drains when it is asked to stop."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from service.engine import Engine
from training.errors import UserError

logger = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket at this address, not listening yet; raises UserError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        advice = "pass another --port, or --port 0 for any that is free"
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; {advice}"
        ) from error
    return listener


class Server(uvicorn.Server):
    """Calls `on_listening` once connections are accepted; on SIGTERM or Ctrl-C turns /readyz to 503, waits, and lets requests finish."""

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
        # uvicorn raises the signal that stopped it once more when it has drained; to us that is a clean end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        super().run(sockets)
