"""Every error as application/problem+json (RFC 9457): what was required, what arrived, what to do."""

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

from training.data.images import Reason

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

Kind = (
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
        "overloaded",
        "draining",
        "internal-error",
    ]
)

KINDS: Mapping[Kind, tuple[int, str]] = {
    "empty": (400, "The file is empty"),
    "truncated": (400, "The image is cut off or damaged"),
    "unreadable": (400, "The image cannot be read"),
    "not-an-image": (415, "The file is not an image"),
    "unsupported": (415, "This kind of image is not supported"),
    "too-many-pixels": (413, "The image has too many pixels"),
    "too-many-bytes": (413, "The upload is too large"),
    "too-many-images": (413, "The request has too many images"),
    "malformed-upload": (400, "The upload is malformed"),
    "not-an-upload": (415, "The request is not an upload"),
    "missing-image": (422, "The image is missing"),
    "invalid-request": (422, "The request is not valid"),
    "unknown-label": (422, "No item has this label"),
    "unavailable-metric": (422, "This index cannot be searched by this metric"),
    "no-probe": (422, "This index has no classifier of its items' labels"),
    "no-map": (404, "This index has no map of its items"),
    "unknown-item": (404, "There is no such item"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "The address does not take this method"),
    "overloaded": (429, "The service is busy"),
    "draining": (503, "The service is about to stop"),
    "internal-error": (500, "The service failed"),
}


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(examples=["urn:lookalike:problem:too-many-pixels"])
    title: str = Field(examples=["The image has too many pixels"])
    status: int = Field(examples=[413])
    detail: str = Field(
        examples=[
            "cat.png: the image has 10000 x 10000 = 100,000,000 pixels; at most 50,000,000 are accepted, so scale it down"
        ]
    )
    filename: str | None = Field(
        default=None,
        examples=["cat.png"],
        description="Which of the uploaded files it is about, if it is about one.",
    )


class ProblemError(Exception):
    """Ends a request with a problem; `kind` settles its status and title."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        filename: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(detail)
        self.kind: Kind = kind
        self.filename = filename
        self.headers = headers

    def problem(self) -> Problem:
        status, title = KINDS[self.kind]
        return Problem(
            type=f"urn:lookalike:problem:{self.kind}",
            title=title,
            status=status,
            detail=str(self),
            filename=self.filename,
        )


class ProblemResponse(JSONResponse):
    """A problem on its way out."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None):
        super().__init__(problem.model_dump(exclude_none=True), problem.status, headers)

    @classmethod
    def of(cls, error: ProblemError) -> "ProblemResponse":
        return cls(error.problem(), error.headers)


def install(app: FastAPI) -> None:
    """Makes the app answer every error, its frameworks' own included, with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_crash)


def documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of these problems: FastAPI's `responses`."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        response = responses.setdefault(
            status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}},
        )
        response["description"] = (
            f"{response['description']}; {title[0].lower()}{title[1:]}"
            if response["description"]
            else title
        )
    return responses


async def _on_problem(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ProblemError)
    return ProblemResponse.of(error)


async def _on_invalid(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    return ProblemResponse.of(
        ProblemError("invalid-request", "; ".join(_sentence(one) for one in error.errors()))
    )


async def _on_http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    address = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return ProblemResponse.of(
            ProblemError("not-found", f"{address}: no such address; /docs lists those there are")
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{address}: this address takes {allowed or 'another method'} only; see /docs"
        return ProblemResponse.of(ProblemError("method-not-allowed", detail, headers=error.headers))
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=str(error.detail),
    )
    return ProblemResponse(problem, error.headers)


async def _on_disconnect(request: Request, error: Exception) -> ProblemResponse:
    return ProblemResponse.of(
        ProblemError(
            "malformed-upload", "the connection was closed before the whole request had arrived"
        )
    )


async def _on_crash(request: Request, error: Exception) -> ProblemResponse:
    # The exception may quote a path or a query, so it goes to the log alone; the server logs its traceback.
    logger.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
    problem = ProblemError(
        "internal-error",
        "the service failed on this request; the reason is in its log",
        headers={"X-Content-Type-Options": "nosniff"},
    )
    return ProblemResponse.of(problem)


def _sentence(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors for people: `k: Input should be greater than or equal to 1, got '0'`."""
    where = ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no such parameter; /docs lists those there are"
    return f"{where}: {error['msg']}, got {error['input']!r}"
