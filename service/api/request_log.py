"""The id and the log line of each request."""

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import ACCESS_LOG, request_id

HEADER = "X-Request-Id"

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE_IN_PATHS = "/:@!$&'()*+,;=~"

logger = logging.getLogger(__name__)
access_logger = logging.getLogger(ACCESS_LOG)


class RequestLog:
    """ASGI middleware that gives every request an id, and logs the request when it is answered.

    The id is the client's own X-Request-Id if it is short and plain, and a random one otherwise. It
    is sent back in the header X-Request-Id, and all records of the request in the log contain it.
    `shows_query` says whether the log contains the part of an address after the question mark.
    """

    def __init__(self, app: ASGIApp, *, is_logging: bool, shows_query: bool):
        self.app = app
        self.is_logging = is_logging
        self.shows_query = shows_query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start_s = time.perf_counter()
        status: int | None = None
        is_complete = False
        id = _id_of(scope)
        # It is not reset afterwards, because uvicorn logs in the same task.
        request_id.set(id)

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = id
            else:
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            # Starlette answers with a problem, and raises the error again. If uvicorn got it, it
            # would close the connection, although the client may already use it again.
            if not is_complete:
                raise
            logger.exception("the application failed")
        finally:
            if self.is_logging:
                self._log(scope, status, time.perf_counter() - start_s)

    def _log(self, scope: Scope, status: int | None, duration_s: float) -> None:
        """Log a request. The status is None if the request was cancelled before its answer."""
        path = quote(scope["path"], safe=_SAFE_IN_PATHS)
        if self.shows_query and scope["query_string"]:
            path += f"?{quote(scope['query_string'], safe=_SAFE_IN_PATHS + '?%')}"
        method, duration_ms = scope["method"], round(1000 * duration_s, 1)
        client = scope["client"][0] if scope.get("client") else None
        fields = {
            "method": method,
            "path": path,
            "status": status,
            "duration_ms": duration_ms,
            "client": client,
        }
        access_logger.info(
            *("%s %s %s in %s ms, client %s", method, path, status or "-", duration_ms, client),
            extra={"fields": fields},
        )


def _id_of(scope: Scope) -> str:
    given = Headers(scope=scope).getlist(HEADER)
    is_plain = len(given) == 1 and _ID.fullmatch(given[0])
    return given[0] if is_plain else uuid.uuid4().hex
