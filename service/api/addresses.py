"""Requests that no route answers as they are: HEAD, and a slash at the end of an address."""

from starlette.exceptions import HTTPException
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.forwarding import route_path
from service.api.problems import ProblemError


class HeadAsGet:
    """ASGI middleware that answers HEAD as GET, but without the content.

    It is a middleware because FastAPI would list HEAD in the OpenAPI description of each address.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_head = scope["method"] == "HEAD"

        async def send_without_content(message: Message) -> None:
            if is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # The scope is copied, because the server must still see that the method is HEAD.
        inner_scope = {**scope, "method": "GET"} if is_head else scope
        await self.app(inner_scope, receive, send_without_content)


class UnknownAddress:
    """ASGI application for the requests that no route of the router matches.

    If the address is right except for a slash at its end, the problem says so. Starlette would
    redirect to an absolute address instead, and behind a proxy with TLS its scheme can be wrong.
    """

    def __init__(self, router: Router):
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        without_slash = {**scope, "path": scope["path"].rstrip("/")}
        if path.endswith("/") and self._is_known(without_slash):
            raise ProblemError(
                "not-found",
                f"{scope['method']} {path}: there is no such address; "
                f"use {path.rstrip('/')}, without the slash at the end",
            )
        raise HTTPException(404)

    def _is_known(self, scope: Scope) -> bool:
        return any(route.matches(dict(scope))[0] != Match.NONE for route in self.router.routes)
