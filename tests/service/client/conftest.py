"""`connect(URL)`: one test runs with both clients."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service.client import AsyncClient, Client

Connect = Callable[..., Any]


class OneLoopPerCall:
    """An AsyncClient with the methods of a Client. Each call has its own event loop."""

    def __init__(self, *arguments: Any, **options: Any):
        def make() -> AsyncClient:
            return AsyncClient(*arguments, **options)

        self._make = make
        asyncio.run(self._make().close())  # raises the errors of the arguments

    def __repr__(self) -> str:
        return repr(self._make())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: asyncio.run(self._call(name, arguments, options))

    async def _call(self, name: str, arguments: Any, options: Any) -> Any:
        async with self._make() as client:
            called = getattr(client, name)(*arguments, **options)
            return [one async for one in called] if name == "all_items" else await called


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """`connect(URL, **options)` is a Client, or an AsyncClient with the same methods."""
    with ExitStack() as opened:
        yield (
            lambda *arguments, **options: (
                opened.enter_context(Client(*arguments, **options))
                if request.param == "sync"
                else OneLoopPerCall(*arguments, **options)
            )
        )
