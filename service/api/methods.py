"""The methods that an address accepts, for the header Allow (RFC 9110, section 10.2.1)."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """The methods that one of the routes accepts at the address of a request.

    Starlette names only the methods of the first route with this address. HEAD is accepted where
    GET is accepted. The files of the mounted folders accept only these two.
    """
    # A mounted folder has changed the root path to its own.
    scope = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    routed = {method: "GET" if method == "HEAD" else method for method in METHODS}
    return [method for method in METHODS if _accepts(routes, scope, routed[method])]


def _accepts(routes: Sequence[BaseRoute], scope: Scope, method: str) -> bool:
    asked = {**scope, "method": method}
    return any(
        route.matches(dict(asked))[0] == Match.FULL
        for route in routes
        if method == "GET" or not isinstance(route, Mount)
    )
