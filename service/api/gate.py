"""The gate: it refuses requests from their headers, before anything else is done for them.

Under overload, most requests are refused. So a refusal must cost as little as possible.
"""

import math
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import Overloaded
from service.api.forwarding import route_path
from service.api.problems import ProblemError, ProblemResponse, not_ready
from service.engine import Engine

PATHS = ("/classify", "/similar", "/features", "/items")
"""The routes that receive images with POST."""
TIMEOUT_HEADER = "X-Request-Timeout"
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "The time in which the client wants its answer, in seconds. A request that "
    "cannot be answered in this time is refused or dropped, with 429.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "examples": [10]},
}
"""The description of this header for FastAPI's argument `openapi_extra`."""


class Gate:
    """ASGI middleware that refuses uploads while the service is overloaded or hangs.

    It reads the client's own deadline from X-Request-Timeout, and keeps it as `timeout_s` in the
    state of the request.
    """

    def __init__(self, app: ASGIApp, engine: Engine):
        self.app = app
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = route_path(scope)
            if path in PATHS:
                try:
                    self._check(scope)
                except ProblemError as error:
                    scope["state"]["path"] = path
                    return await ProblemResponse.of(error)(scope, receive, send)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise ProblemError if the request cannot be admitted now."""
        timeout_s = timeout_of(scope)
        scope.setdefault("state", {})["timeout_s"] = timeout_s
        if self.engine.is_hanging:
            raise not_ready()
        try:
            self.engine.admission.check(1, timeout_s)
        except Overloaded as error:
            raise ProblemError.of(error) from error


def timeout_of(scope: Scope) -> float | None:
    """The client's own deadline in seconds; None if it has none.

    Raises ProblemError if the header is not a positive number.
    """
    text = Headers(scope=scope).get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise ProblemError(
            "invalid-request",
            f"{TIMEOUT_HEADER}: must be a positive number of seconds, got {text[:50]!r}",
        )
    return timeout_s
