"""Keys: who may read, and who may change the index.

A key is sent as `Authorization: Bearer KEY`, or as the password of HTTP Basic, which browsers ask
for by themselves. The user name does not matter.
"""

import base64
import hmac
from typing import Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from service.api.problems import ProblemError, documented
from service.settings import Settings

CHALLENGE = 'Basic realm="Lookalike", charset="UTF-8", Bearer realm="Lookalike"'


class _Described(HTTPBearer):
    """A key in the description of the API. The functions below read the header themselves.

    FastAPI would answer a header that it cannot read with an error of its own.
    """

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        return None


async def may_read(request: Request) -> None:
    """Raise ProblemError unless the client may read."""
    settings = _settings(request)
    if not _has_key(request, settings.read_key, settings.write_key):
        raise _unauthorized(request)


async def may_write(request: Request) -> None:
    """Raise ProblemError unless the client may change the index."""
    settings = _settings(request)
    if settings.write_key is None:
        raise ProblemError(
            "forbidden",
            "this service does not change its index; "
            "to allow it, start the service with LOOKALIKE_WRITE_KEY",
        )
    if _has_key(request, settings.write_key):
        return
    if _has_key(request, settings.read_key):
        raise ProblemError("forbidden", "this key may only read; send the write key")
    raise _unauthorized(request)


_KEY = Security(_Described(scheme_name="key", auto_error=False))
WRITING = [Depends(may_write), _KEY]
"""The dependencies of all routes that need the write key."""


def reading(settings: Settings) -> dict[str, Any]:
    """The arguments of `include_router` for routes that need the read key, if there is one."""
    if settings.read_key is None:
        return {}
    return {"dependencies": [Depends(may_read), _KEY], "responses": documented("unauthorized")}


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.engine.settings
    return settings


def _has_key(request: Request, *keys: SecretStr | None) -> bool:
    sent = _sent_key(request.headers.get("authorization", ""))
    # All keys are compared, and each comparison takes the same time.
    matches = [
        hmac.compare_digest(sent, key.get_secret_value().encode())
        for key in keys
        if key is not None
    ]
    return any(matches)


def _sent_key(header: str) -> bytes:
    """The key of the header Authorization. It is empty if there is none."""
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value.encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""


def _unauthorized(request: Request) -> ProblemError:
    sent = "the key is wrong" if "authorization" in request.headers else "a key is missing"
    return ProblemError(
        "unauthorized",
        f"{sent}; send it as `Authorization: Bearer KEY`, or as the password of HTTP Basic",
        headers={"WWW-Authenticate": CHALLENGE},
    )
