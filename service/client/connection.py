"""The address of the service and the way to it, for `Client` and for `AsyncClient`."""

import math
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.client.calls import Call
from service.client.retries import Retries
from training.errors import UserError

GRACE_S = 1.0
"""Additional time for an answer to arrive, in seconds. If the service runs out of time, it says so,
and this answer needs time to arrive."""
KEEP_ALIVE_S = 4.0
"""Time for which an idle connection is kept, in seconds. It is short, because a request on a
connection that the service is just closing would be lost."""
WITHOUT_PROXY = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Addresses of this machine. No proxy can reach them."""


@dataclass(frozen=True)
class Connection:
    """The address of a service, the key, and the limits of a call. `Client` explains them.

    Raises UserError for a value that cannot be used. The errors do not contain the key.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    max_retries: int = 5
    max_wait_s: float = 60.0

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check_key(self.key)
        if not 0 < self.timeout_s < math.inf:
            raise UserError(f"timeout_s must be a positive number of seconds, got {self.timeout_s}")
        if self.max_retries < 0:
            raise UserError(f"max_retries must be 0 or more, got {self.max_retries}")
        if not self.max_wait_s >= 0:
            raise UserError(f"max_wait_s must be 0 or more, got {self.max_wait_s}")

    def options(self) -> dict[str, Any]:
        """The arguments of httpx.Client and httpx.AsyncClient."""
        headers = {"X-Request-Timeout": f"{self.timeout_s:g}".encode()}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}".encode()
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": httpx.Timeout(self.timeout_s, read=self.timeout_s + GRACE_S),
            "limits": httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
            "mounts": dict.fromkeys(WITHOUT_PROXY),
        }

    def retries(self, call: Call[Any]) -> Retries:
        return Retries(
            max_retries=self.max_retries,
            max_wait_s=self.max_wait_s,
            is_repeatable=call.is_repeatable,
        )


def _check_url(url: str) -> None:
    if "@" in url:  # checked first, because the other errors show the URL
        raise UserError("the URL must not contain a user or a password; pass the key as `key`")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"the URL {url} is not valid ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"the URL must be like http://127.0.0.1:8000, got {url}")
    if parsed.query or parsed.fragment:
        raise UserError(f"the URL must not contain ? or #, got {url}")


def _check_key(key: str | None) -> None:
    if key is None:
        return
    if not key:
        raise UserError("the key is empty; pass None for a service without a key")
    if not key.isprintable() or key != key.strip():
        raise UserError(
            "the key must be one line of printable characters, without spaces around it"
        )
