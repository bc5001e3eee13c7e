"""Limit the size of a request body, and the time in which it arrives."""

import asyncio
import contextlib
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import ProblemError, ProblemResponse
from service.settings import Settings

LINGER_S = 5.0
"""Maximum time for which the rest of a refused request is read, in seconds."""
GRACE_S = 5.0
"""Time that a body has in addition to the time that follows from the least rate, in seconds."""


class BodyLimit:
    """ASGI middleware that refuses a request body that is too large or arrives too slowly.

    If the Content-Length is too large, the request is refused before its body arrives. Most clients
    read the answer only after they have sent the whole body. If the connection were closed earlier,
    these clients would lose the answer. So the rest of the body is read for at most LINGER_S
    seconds and discarded.
    """

    def __init__(self, app: ASGIApp, settings: Settings):
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, body = Headers(scope=scope), _Body(receive, self.settings)
        must_linger = False

        async def send_lingering(message: Message) -> None:
            if (must_linger or body.is_too_large) and message["type"] == "http.response.body":
                await send({**message, "more_body": True})
                await body.discard_rest()
                message = {"type": "http.response.body"}
            await send(message)

        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.settings.max_request_bytes:
            # A client that sends `Expect` waits for this answer before it sends the body.
            must_linger = "expect" not in headers
            response = ProblemResponse.of(_too_large(f"{int(announced):,}", self.settings))
            return await response(scope, receive, send_lingering)
        await self.app(scope, body.receive, send_lingering)


class _Body:
    """The body of a request while it arrives."""

    def __init__(self, receive: Receive, settings: Settings):
        self._receive, self._settings = receive, settings
        self._num_bytes = 0
        self._started_s: float | None = None
        self._is_complete = False
        self.is_too_large = False
        """Whether the body has been refused before it was complete."""

    async def receive(self) -> Message:
        """The next part of the body; raises ProblemError if it is too large or too late."""
        if self._is_complete:  # the caller waits for the end of the connection
            return await self._receive()
        if self._started_s is None:
            self._started_s = time.monotonic()
        try:
            async with asyncio.timeout(self._left_s(self._started_s)):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError(
                "too-slow",
                f"only {self._num_bytes:,} bytes of the request arrived in "
                f"{time.monotonic() - self._started_s:.0f} s; send smaller images",
                headers={"Connection": "close"},
            ) from None
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > self._settings.max_request_bytes:
            self.is_too_large = not self._is_complete
            raise _too_large(f"more than {self._settings.max_request_bytes:,}", self._settings)
        return message

    async def discard_rest(self) -> None:
        """Read the rest of the body for at most LINGER_S and discard it.

        The limit is a time. If it were a number of bytes, a fast client could send more bytes. Then
        its connection would be reset, and the reset could arrive before the answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self._receive()).get("more_body", False):
                    pass

    def _left_s(self, started_s: float) -> float:
        """How long the next part of the body may take."""
        limit_s = self._settings.upload_s
        if rate := self._settings.min_upload_rate:
            limit_s = min(limit_s, GRACE_S + self._num_bytes / rate)
        return max(0.0, started_s + limit_s - time.monotonic())


def _too_large(num_bytes: str, settings: Settings) -> ProblemError:
    return ProblemError(
        "too-many-bytes",
        f"the request has {num_bytes} bytes; at most {settings.max_request_bytes:,} are accepted, "
        "so send smaller or fewer images",
        headers={"Connection": "close"},
    )
