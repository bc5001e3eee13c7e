"""The web page, its files, and the security headers of all responses."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.forwarding import route_path

DIRECTORY = Path(__file__).parents[1] / "web"
DOCS_PATH = "/docs"

_POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
# Swagger UI has an inline script and inline styles. Its page does not show users' data.
_DOCS_POLICY = f"{_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"

router = APIRouter(include_in_schema=False)
files = StaticFiles(directory=DIRECTORY)


@router.get("/")
def page(request: Request) -> Response:
    """The web page. Under a root path, it names the address that its links are relative to.

    A proxy can publish the page both as /lookalike and as /lookalike/, and a browser would
    understand the links differently.
    """
    file, root_path = DIRECTORY / "index.html", request.scope["root_path"]
    if not root_path:
        return FileResponse(file)
    # `plain_root_path` has checked the root path, so it needs no escaping.
    base = f'<head>\n  <base href="{root_path}/">'
    return HTMLResponse(file.read_text("utf-8").replace("<head>", base, 1))


class SecurityHeaders:
    """ASGI middleware that adds security headers to every response.

    With these headers, browsers run only this server's scripts and styles, and do not guess content
    types. Caches revalidate a response before they use it, unless the response has its own
    Cache-Control.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_docs = route_path(scope).startswith(DOCS_PATH)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _DOCS_POLICY if is_docs else _POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self.app(scope, receive, send_with_headers)
