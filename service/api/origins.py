"""Cross-origin resource sharing (CORS): which web pages of other origins may use the service."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service.api.problems import Problem, ProblemResponse

METHODS = ("GET", "HEAD", "POST", "DELETE")
REQUEST_HEADERS = ("Authorization", "If-None-Match", "X-Request-Id", "X-Request-Timeout")
ANSWER_HEADERS = ("ETag", "Retry-After", "Server-Timing", "X-Model-Id", "X-Request-Id")


class AllowedOrigins(CORSMiddleware):
    """ASGI middleware that lets pages of these origins read the answers.

    `*` stands for every origin. Then browsers must not send credentials of their own, such as a
    password that they have stored. A page can always set the header Authorization itself.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]):
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_credentials="*" not in origins,
            expose_headers=ANSWER_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Like the base class, but a refusal is a problem."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        origin = request_headers["origin"]
        problem = Problem(
            type="about:blank",
            title="Bad Request",
            status=response.status_code,
            detail=f"{bytes(response.body).decode()}; the setting allowed_origins of the service "
            f"lists the origins, and the request comes from {origin}",
        )
        kept = ("vary", *(name for name in response.headers if name.startswith("access-control-")))
        return ProblemResponse(problem, {name: response.headers[name] for name in kept})
