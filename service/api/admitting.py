"""Admit the images of a request, and drop the request when nobody waits for its answer any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request

from service.admission import Admission, Overloaded
from service.api.observing import note_timings
from service.ticket import Dropped, Ticket


@asynccontextmanager
async def admitted(
    request: Request, admission: Admission, num_images: int, timeout_s: float | None = None
) -> AsyncIterator[Ticket]:
    """Count images as waiting inside the block, and yield the ticket of their request.

    If the client closes the connection inside the block, the request is dropped. Raises Overloaded
    if the request is refused or dropped.
    """
    with admission.admit(num_images, timeout_s) as ticket:
        try:
            async with _watching(request, ticket):
                yield ticket
        except Dropped as error:
            request.app.state.metrics.count_dropped(error.reason, num_images)
            raise Overloaded(str(error), admission.retry_s()) from error
        finally:
            note_timings(request, ticket)


@asynccontextmanager
async def _watching(request: Request, ticket: Ticket) -> AsyncIterator[None]:
    """Drop the request if its client closes the connection inside the block."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        ticket.disconnect()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
