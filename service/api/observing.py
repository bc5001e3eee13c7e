"""Measure every request for GET /metrics and for the header Server-Timing."""

import time

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.methods import METHODS
from service.metrics import Metrics
from service.ticket import Ticket, Timing


class Observed:
    """ASGI middleware that counts every answer, and says how long its parts took.

    The counters contain the route of a request, and not its address, because clients can make up
    any number of addresses.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start_s = time.perf_counter()
        state = scope.setdefault("state", {})
        status = 500  # if the application crashes

        async def send_with_timings(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if timings := state.get("timings"):
                    total_s = time.perf_counter() - start_s
                    header = _server_timing(timings, total_s)
                    MutableHeaders(scope=message)["Server-Timing"] = header
            await send(message)

        try:
            await self.app(scope, receive, send_with_timings)
        finally:
            path = state.get("path") or getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.count_request(path, method, status, time.perf_counter() - start_s)
            if problem := state.get("problem"):
                self.metrics.count_refused(problem)


def note_timings(request: Request, ticket: Ticket) -> None:
    """Keep the times of a request's stages for the header.

    A request that adds images has two tickets, one after the other.
    """
    request.state.timings = getattr(request.state, "timings", {}) | ticket.timings


def _server_timing(timings: dict[str, Timing], total_s: float) -> str:
    """The value of the header: `decode;dur=3.1, network;dur=12.0, wait;dur=0.2, total;dur=16.1`.

    The unit is milliseconds. The header is described in the W3C's Server Timing.
    """
    durations = {stage: timing.run_s for stage, timing in timings.items()}
    durations["wait"] = sum(timing.wait_s for timing in timings.values())
    durations["total"] = total_s
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in durations.items())
