"""A typed Python client of the service: `Client`, and `AsyncClient` for asyncio.

The client does not import the server. It needs httpx, which the extra `client` installs.
"""

try:
    import httpx as _httpx  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the client needs httpx; install it with: pip install 'lookalike[client]'", name="httpx"
    ) from error

from service.client.answers import (
    Added,
    ClassScore,
    Info,
    Item,
    Match,
    Page,
    Problem,
    Removed,
)
from service.client.async_client import AsyncClient
from service.client.client import Client
from service.client.errors import NoAnswerError, ServiceError

__all__ = [
    "Added",
    "AsyncClient",
    "ClassScore",
    "Client",
    "Info",
    "Item",
    "Match",
    "NoAnswerError",
    "Page",
    "Problem",
    "Removed",
    "ServiceError",
]
