"""The client for asyncio."""

from asyncio import sleep, to_thread
from collections.abc import AsyncIterator
from typing import Self, TypeVar, Unpack, overload

import httpx

from service.client import calls
from service.client.answers import Added, ClassScore, Info, Item, Match, Page, Problem, Removed
from service.client.calls import By, Call, Floats, Labels, SearchOptions
from service.client.connection import Connection
from service.client.images import Image, Images
from service.client.retries import Outcome

T = TypeVar("T")


class AsyncClient:
    """A client for asyncio. `Client` explains the arguments, the methods and the errors.

    Use one client per event loop. Tasks may share it.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 5,
        max_wait_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self._connection = Connection(url, key, timeout_s, max_retries, max_wait_s)
        self._http = httpx.AsyncClient(transport=transport, **self._connection.options())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    @overload
    async def classify(
        self, images: Images, k: int = ..., *, by: By = ...
    ) -> list[list[ClassScore] | Problem]: ...

    @overload
    async def classify(self, images: Image, k: int = ..., *, by: By = ...) -> list[ClassScore]: ...

    async def classify(
        self, images: Image | Images, k: int = 5, *, by: By = "classes"
    ) -> list[ClassScore] | list[list[ClassScore] | Problem]:
        return await self._ask(calls.classify(images, k, by))

    @overload
    async def similar(
        self, images: Images, k: int = ..., **options: Unpack[SearchOptions]
    ) -> list[list[Match] | Problem]: ...

    @overload
    async def similar(
        self, images: Image, k: int = ..., **options: Unpack[SearchOptions]
    ) -> list[Match]: ...

    async def similar(
        self, images: Image | Images, k: int = 6, **options: Unpack[SearchOptions]
    ) -> list[Match] | list[list[Match] | Problem]:
        return await self._ask(calls.similar(images, calls.search_params(k, **options)))

    async def features(self, images: Image | Images) -> Floats:
        return await self._ask(calls.features(images))

    async def similar_to(
        self, id: int, k: int = 6, **options: Unpack[SearchOptions]
    ) -> list[Match]:
        return await self._ask(calls.similar_to(id, calls.search_params(k, **options)))

    async def item(self, id: int) -> Item:
        return await self._ask(calls.item(id))

    async def thumbnail(self, id: int) -> bytes:
        return await self._ask(calls.thumbnail(id))

    async def items(self, label: Labels = None, *, limit: int = 100, offset: int = 0) -> Page:
        return await self._ask(calls.items(label, limit, offset))

    async def all_items(self, label: Labels = None, *, page_size: int = 100) -> AsyncIterator[Item]:
        calls.check_page_size(page_size)
        offset, total = 0, 1
        while offset < total:
            page = await self.items(label, limit=page_size, offset=offset)
            for item in page.items:
                yield item
            offset, total = offset + page_size, page.total

    @overload
    async def add(
        self, images: Images, *, label: str | None = ..., path: str | None = ...
    ) -> list[Added | Problem]: ...

    @overload
    async def add(
        self, images: Image, *, label: str | None = ..., path: str | None = ...
    ) -> Added: ...

    async def add(
        self, images: Image | Images, *, label: str | None = None, path: str | None = None
    ) -> Added | list[Added | Problem]:
        return await self._ask(calls.add(images, label, path))

    async def remove(self, id: int) -> Removed:
        return await self._ask(calls.remove(id))

    async def info(self) -> Info:
        return await self._ask(calls.info())

    async def is_ready(self) -> bool:
        return calls.is_ready(await self._send(calls.READINESS))

    async def _ask(self, call: Call[T]) -> T:
        if call.known is not None:
            return call.known
        retries = self._connection.retries(call)
        outcome = await self._send(call)
        while (wait_s := retries.wait_s(outcome)) is not None:
            await sleep(wait_s)
            outcome = await self._send(call)
        return call.answer(outcome)

    async def _send(self, call: Call[T]) -> Outcome:
        # Files are read in a thread, so that the event loop does not wait for the disk.
        request = await to_thread(call.request, self._http)
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            return error
