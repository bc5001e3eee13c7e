"""The synchronous client."""

from collections.abc import Iterator
from time import sleep
from typing import Self, TypeVar, Unpack, overload

import httpx

from service.client import calls
from service.client.answers import Added, ClassScore, Info, Item, Match, Page, Problem, Removed
from service.client.calls import By, Call, Floats, Labels, SearchOptions
from service.client.connection import Connection
from service.client.images import Image, Images
from service.client.retries import Outcome

T = TypeVar("T")


class Client:
    """A client of the service at a URL. It may be used from several threads.

    `classify`, `similar` and `features` are like the methods of `lookalike.open_index(...)`. An
    image is a path, the bytes of a file, or a pair of a name and bytes. One image has one answer. A
    list of images has a list of answers. In this list, the answer of an unusable image is a
    Problem. If no image of the call is usable, ServiceError is raised for the first one.

    Every method raises ServiceError if the service refuses the request, NoAnswerError if no answer
    arrives, and UserError if an image file cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 5,
        max_wait_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ):
        """Raises UserError if an argument cannot be used. Nothing is sent yet.

        `timeout_s` is the time that the service has for one answer. Busy services (429, 503) and
        lost connections are tried again, at most `max_retries` times, with waits of at most
        `max_wait_s` in total. An httpx transport can be passed for other TLS settings.
        """
        self._connection = Connection(url, key, timeout_s, max_retries, max_wait_s)
        self._http = httpx.Client(transport=transport, **self._connection.options())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def classify(
        self, images: Images, k: int = ..., *, by: By = ...
    ) -> list[list[ClassScore] | Problem]: ...

    @overload
    def classify(self, images: Image, k: int = ..., *, by: By = ...) -> list[ClassScore]: ...

    def classify(
        self, images: Image | Images, k: int = 5, *, by: By = "classes"
    ) -> list[ClassScore] | list[list[ClassScore] | Problem]:
        """The `k` most probable classes of an image, most probable first."""
        return self._ask(calls.classify(images, k, by))

    @overload
    def similar(
        self, images: Images, k: int = ..., **options: Unpack[SearchOptions]
    ) -> list[list[Match] | Problem]: ...

    @overload
    def similar(
        self, images: Image, k: int = ..., **options: Unpack[SearchOptions]
    ) -> list[Match]: ...

    def similar(
        self, images: Image | Images, k: int = 6, **options: Unpack[SearchOptions]
    ) -> list[Match] | list[list[Match] | Problem]:
        """The `k` nearest items of an image, nearest first. SearchOptions lists the options."""
        return self._ask(calls.similar(images, calls.search_params(k, **options)))

    def features(self, images: Image | Images) -> Floats:
        """The features (n, 4096) float32, one row per image.

        An array cannot contain a Problem, so one unusable image raises ServiceError.
        """
        return self._ask(calls.features(images))

    def similar_to(self, id: int, k: int = 6, **options: Unpack[SearchOptions]) -> list[Match]:
        """The `k` nearest items of an item, nearest first, without the item itself."""
        return self._ask(calls.similar_to(id, calls.search_params(k, **options)))

    def item(self, id: int) -> Item:
        """One item."""
        return self._ask(calls.item(id))

    def thumbnail(self, id: int) -> bytes:
        """A small JPEG of an item."""
        return self._ask(calls.thumbnail(id))

    def items(self, label: Labels = None, *, limit: int = 100, offset: int = 0) -> Page:
        """At most `limit` items, after the first `offset` items."""
        return self._ask(calls.items(label, limit, offset))

    def all_items(self, label: Labels = None, *, page_size: int = 100) -> Iterator[Item]:
        """All items, in the order in which they were added. They are read page by page.

        If items are removed meanwhile, the iterator may leave out other items.
        """
        calls.check_page_size(page_size)
        offset, total = 0, 1
        while offset < total:
            page = self.items(label, limit=page_size, offset=offset)
            yield from page.items
            offset, total = offset + page_size, page.total

    @overload
    def add(
        self, images: Images, *, label: str | None = ..., path: str | None = ...
    ) -> list[Added | Problem]: ...

    @overload
    def add(self, images: Image, *, label: str | None = ..., path: str | None = ...) -> Added: ...

    def add(
        self, images: Image | Images, *, label: str | None = None, path: str | None = None
    ) -> Added | list[Added | Problem]:
        """Add images with a label to the index. `path` is the path of the item, only for one image.

        An image that the index already has is `unchanged`, so it does no harm to add it again.
        """
        return self._ask(calls.add(images, label, path))

    def remove(self, id: int) -> Removed:
        """Remove an item from the index."""
        return self._ask(calls.remove(id))

    def info(self) -> Info:
        """The model and the index, the limits of a request, and the library versions."""
        return self._ask(calls.info())

    def is_ready(self) -> bool:
        """Whether the service can be reached and accepts requests. Nothing is retried."""
        return calls.is_ready(self._send(calls.READINESS))

    def _ask(self, call: Call[T]) -> T:
        if call.known is not None:
            return call.known
        retries = self._connection.retries(call)
        outcome = self._send(call)
        while (wait_s := retries.wait_s(outcome)) is not None:
            sleep(wait_s)
            outcome = self._send(call)
        return call.answer(outcome)

    def _send(self, call: Call[T]) -> Outcome:
        try:
            return self._http.send(call.request(self._http))
        except httpx.RequestError as error:
            return error
