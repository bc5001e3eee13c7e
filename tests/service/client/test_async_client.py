"""The client for asyncio among other tasks. test_client.py tests the methods of both clients."""

import asyncio
import inspect

from service.client import AsyncClient, Client
from tests.conftest import COLOURS
from tests.service.client.fakes import URL, FakeService, problem
from tests.service.conftest import Service
from tests.service.pictures import picture


def test_both_clients_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, str]:
        public = {name: one for name, one in vars(kind).items() if not name.startswith("_")}
        texts = {name: str(inspect.signature(one)) for name, one in public.items()}
        return {name: text.replace("AsyncIterator", "Iterator") for name, text in texts.items()}

    assert signatures(AsyncClient) == signatures(Client)


def test_tasks_may_share_a_client(service: Service) -> None:
    colours = list(COLOURS) * 4

    async def ask_all() -> list[str | None]:
        async with AsyncClient(service.url) as client:
            asked = [client.similar(picture(colour, seed=5), k=1) for colour in colours]
            return [matches[0].label for matches in await asyncio.gather(*asked)]

    assert asyncio.run(ask_all()) == colours


def test_other_tasks_run_while_a_client_waits() -> None:
    service = FakeService([problem("overloaded", 429, retry_after="1")])

    async def ask_both() -> list[bool]:
        async with AsyncClient(URL, transport=service.transport) as client:
            waiting = asyncio.create_task(client.info())
            while not service.requests:
                await asyncio.sleep(0.01)
            was_ready, was_waiting = await client.is_ready(), not waiting.done()
            await waiting
            return [was_ready, was_waiting]

    assert asyncio.run(ask_both()) == [True, True]
