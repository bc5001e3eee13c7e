"""The service behind a proxy: whose headers are trusted, and under which path it is published."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.settings import Settings, plain_root_path


class Forwarding:
    """ASGI middleware that takes the client, the scheme and the root path from a trusted proxy.

    They come from X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix. Without a valid
    X-Forwarded-Prefix, the root path is the setting `root_path`. In the scope, `path` begins with
    the root path, whether the proxy has removed it from the address or not. `route_path` gives the
    rest.
    """

    def __init__(self, app: ASGIApp, settings: Settings):
        self.root_path = settings.root_path
        # It reads the other two headers.
        self.app = ProxyHeadersMiddleware(
            app,  # type: ignore[arg-type]  # uvicorn has types of its own
            trusted_hosts=list(settings.forwarded_allow_ips),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root_path = self.root_path
            if (scope.get("client") or [None])[0] in self.app.trusted_hosts:
                root_path = _forwarded_prefix(scope) or root_path
            scope = {**scope, **_published(scope, root_path)}
        await self.app(scope, receive, send)  # type: ignore[arg-type]


def route_path(scope: Scope) -> str:
    """The path of an address without the root path of the service."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _forwarded_prefix(scope: Scope) -> str | None:
    """The path in X-Forwarded-Prefix. None without the header, or if its value is not plain.

    With several headers, a client may have added one of them, so none of them is used.
    """
    values = Headers(scope=scope).getlist("x-forwarded-prefix")
    return plain_root_path(values[0].strip()) if len(values) == 1 else None


def _published(scope: Scope, root_path: str) -> dict[str, str | bytes]:
    """The entries of a scope that depend on the root path."""
    path: str = scope["path"]
    raw_path: bytes = scope.get("raw_path") or path.encode()
    if path != root_path and not path.startswith(f"{root_path}/"):
        path, raw_path = root_path + path, root_path.encode() + raw_path
    if path == root_path:
        path, raw_path = f"{path}/", raw_path + b"/"
    return {"root_path": root_path, "path": path, "raw_path": raw_path}
