"""Error responses in the format application/problem+json (RFC 9457).

A new error of the engine needs an entry in `_PROBLEM_TYPES`. A new problem type needs an entry in
`PROBLEMS`.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from indexer.errors import NoProbeError, UnknownLabelError
from indexer.metrics import HammingOnlyError
from service.admission import Overloaded
from service.api.methods import allowed_methods
from service.snapshot import KTooLargeError, MetricUnavailableError
from training.data.images import Reason
from training.errors import UserError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
NOT_READY_S = 10
"""Seconds after which a client may try again if the service is stopping or not ready."""

ProblemType = (
    Reason
    | Literal[
        "too-many-bytes",
        "too-many-images",
        "malformed-upload",
        "not-an-upload",
        "missing-image",
        "invalid-request",
        "unknown-label",
        "unavailable-metric",
        "no-probe",
        "no-map",
        "unknown-item",
        "not-found",
        "method-not-allowed",
        "unauthorized",
        "forbidden",
        "too-slow",
        "overloaded",
        "draining",
        "not-ready",
        "index-busy",
        "internal-error",
    ]
)
"""The last part of the field `type`. The reasons of ImageError are problem types too."""

PROBLEMS: Mapping[ProblemType, tuple[int, str]] = {
    "empty": (400, "The file is empty"),
    "truncated": (400, "The image is cut off or damaged"),
    "unreadable": (400, "The image cannot be read"),
    "not-an-image": (415, "The file is not an image"),
    "unsupported": (415, "This kind of image is not supported"),
    "too-many-pixels": (413, "The image has too many pixels"),
    "too-costly": (413, "The image would take too much time or memory"),
    "too-many-bytes": (413, "The upload is too large"),
    "too-many-images": (413, "The request has too many images"),
    "malformed-upload": (400, "The upload is malformed"),
    "not-an-upload": (415, "The request is not an upload"),
    "missing-image": (422, "The image is missing"),
    "invalid-request": (422, "The request is not valid"),
    "unknown-label": (422, "No item has this label"),
    "unavailable-metric": (422, "This index does not support this metric"),
    "no-probe": (422, "This index has no classifier for its items' labels"),
    "no-map": (404, "This index has no map of its items"),
    "unknown-item": (404, "There is no such item"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "The address does not accept this method"),
    "unauthorized": (401, "A key is needed"),
    "forbidden": (403, "This is not allowed"),
    "too-slow": (408, "The request arrives too slowly"),
    "overloaded": (429, "The service is busy"),
    "draining": (503, "The service is stopping"),
    "not-ready": (503, "The service is not ready"),
    "index-busy": (503, "The index cannot be changed now"),
    "internal-error": (500, "The service failed"),
}
"""The HTTP status and the title of each problem type."""

_PROBLEM_TYPES: Mapping[type[UserError], ProblemType] = {
    Overloaded: "overloaded",
    KTooLargeError: "invalid-request",
    HammingOnlyError: "invalid-request",
    UnknownLabelError: "unknown-label",
    MetricUnavailableError: "unavailable-metric",
    NoProbeError: "no-probe",
}
"""The problem type of each error that a query can raise. All other exceptions are internal errors,
and their texts are not sent."""


class Problem(BaseModel):
    """An error in the format of RFC 9457."""

    type: str = Field(examples=["urn:lookalike:problem:too-many-pixels"])
    title: str = Field(examples=["The image has too many pixels"])
    status: int = Field(examples=[413])
    detail: str = Field(
        examples=[
            "cat.png: the image has 10000 x 10000 = 100,000,000 pixels; "
            "at most 50,000,000 are accepted, so scale it down"
        ]
    )
    filename: str | None = Field(
        default=None,
        examples=["cat.png"],
        description="The name of the uploaded file, if the error is about one file.",
    )


class ProblemError(Exception):
    """An error that ends a request with a problem. The type determines the status and the title."""

    def __init__(
        self,
        type: ProblemType,
        detail: str,
        *,
        filename: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(detail)
        self.type: ProblemType = type
        self.filename = filename
        self.headers = headers

    @classmethod
    def of(cls, error: UserError) -> "ProblemError":
        """The problem for one of the errors in `_PROBLEM_TYPES`."""
        detail, headers = str(error), None
        if isinstance(error, Overloaded):
            headers = {"Retry-After": str(error.retry_s)}
        if isinstance(error, NoProbeError):  # the error's text contains a path of the server
            detail = (
                "by: items needs a probe of the items' labels, but the index that is served has "
                "none; fit one with `lookalike index probe INDEX`, or pass by=classes"
            )
        return cls(_PROBLEM_TYPES[type(error)], detail, headers=headers)

    def problem(self) -> Problem:
        status, title = PROBLEMS[self.type]
        return Problem(
            type=f"urn:lookalike:problem:{self.type}",
            title=title,
            status=status,
            detail=str(self),
            filename=self.filename,
        )


def not_ready() -> ProblemError:
    """The problem of a service whose network does not answer."""
    return ProblemError(
        "not-ready",
        "the network does not answer; try again later",
        headers={"Retry-After": str(NOT_READY_S)},
    )


class ProblemResponse(JSONResponse):
    """A response with a problem as its content. It notes the problem for the metrics."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None):
        super().__init__(problem.model_dump(exclude_none=True), problem.status, headers)
        self.name = problem.type.rpartition(":")[2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem"] = self.name
        await super().__call__(scope, receive, send)

    @classmethod
    def of(cls, error: ProblemError) -> "ProblemResponse":
        return cls(error.problem(), error.headers)


def install(app: FastAPI) -> None:
    """Make the app answer every error with a problem.

    This includes the errors that FastAPI and Starlette raise.
    """
    app.add_exception_handler(ProblemError, _on_problem)
    for error_class in _PROBLEM_TYPES:
        app.add_exception_handler(error_class, _on_user_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_crash)


def documented(*types: ProblemType) -> dict[int | str, dict[str, Any]]:
    """The descriptions of these problems for FastAPI's argument `responses`."""
    titles: dict[int, list[str]] = {}
    for type in types:
        status, title = PROBLEMS[type]
        titles.setdefault(status, []).append(title)
    schema = Problem.model_json_schema()
    return {
        status: {
            "description": _enumerated(of_status),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, of_status in titles.items()
    }


async def _on_problem(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ProblemError)
    return ProblemResponse.of(error)


async def _on_user_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, UserError)
    return ProblemResponse.of(ProblemError.of(error))


async def _on_invalid(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(_sentence(one) for one in error.errors())
    return ProblemResponse.of(ProblemError("invalid-request", detail))


async def _on_http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    address = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        detail = f"{address}: there is no such address; /docs lists the addresses"
        return ProblemResponse.of(ProblemError("not-found", detail))
    if error.status_code == 405:
        allowed = ", ".join(allowed_methods(request.app.routes, request.scope))
        detail = f"{address}: this address accepts only {allowed}; see /docs"
        headers = {"Allow": allowed}
        return ProblemResponse.of(ProblemError("method-not-allowed", detail, headers=headers))
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=str(error.detail),
    )
    return ProblemResponse(problem, error.headers)


async def _on_disconnect(request: Request, error: Exception) -> ProblemResponse:
    detail = "the connection was closed before the request was complete; send the request again"
    return ProblemResponse.of(ProblemError("malformed-upload", detail))


async def _on_crash(request: Request, error: Exception) -> ProblemResponse:
    # The exception's text may contain a path or a query, so it is not sent. The server logs it.
    logger.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
    problem = ProblemError(
        "internal-error",
        "the service failed on this request; the reason is in its log",
        headers={"X-Content-Type-Options": "nosniff"},
    )
    return ProblemResponse.of(problem)


def _enumerated(titles: list[str]) -> str:
    """Join titles into one description: `The file is empty; the upload is malformed`."""
    first, *others = titles
    return "; ".join([first, *(f"{title[0].lower()}{title[1:]}" for title in others)])


def _sentence(error: Mapping[str, Any]) -> str:
    """The text of a pydantic error: `k: Input should be greater than ... 1, got '0'`."""
    name = ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter; /docs lists the parameters"
    return f"{name}: {error['msg']}, got {error['input']!r}"
