"""Micro-batching, on a network that notes what it is given."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from indexer.embedder import Embedding
from service.batching import Batcher, Overloaded
from training.data.images import Pixels


class Echo:
    """A network whose feature of a square is the square's first value.

    It notes its batches, waits while it is held, and takes `image_s` of its own clock per image.
    """

    def __init__(self, image_s: float = 0) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._image_s = image_s
        self._now_s = 0.0

    def __call__(self, squares: Pixels) -> Embedding:
        self.batches.append([int(square[0, 0, 0]) for square in squares])
        self.threads.add(threading.get_ident())
        assert self.may_go_on.wait(60)
        if 13 in self.batches[-1]:
            raise ArithmeticError("13")
        self._now_s += self._image_s * len(squares)
        values = squares[:, 0, 0, :1].astype(np.float32)
        return Embedding(values, values)

    def clock(self) -> float:
        return self._now_s


def square(value: int) -> Pixels:
    return np.full((2, 2, 3), value, np.uint8)


def with_batcher(
    echo: Echo,
    test: Callable[[Batcher], Awaitable[None]],
    *,
    max_batch: int = 4,
    max_waiting: int = 100,
) -> None:
    """Run an asynchronous test of a batcher in front of this network."""

    async def run() -> None:
        batcher = Batcher(echo, max_batch=max_batch, max_waiting=max_waiting, clock=echo.clock)
        async with batcher:
            await test(batcher)

    asyncio.run(run())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


def test_a_lone_image_runs_at_once() -> None:
    echo = Echo()

    async def test(batcher: Batcher) -> None:
        embedding = await batcher.embed([square(7)])
        assert embedding.features.tolist() == [[7]]
        assert echo.batches == [[7]]

    with_batcher(echo, test)


def test_images_that_arrive_while_a_batch_runs_join_the_next_up_to_the_limit() -> None:
    echo = Echo()
    echo.may_go_on.clear()

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.embed([square(0)]))
        await until(lambda: bool(echo.batches))
        others = [
            asyncio.create_task(batcher.embed([square(value), square(value + 1)]))
            for value in (1, 3, 5)
        ]
        await asyncio.sleep(0)
        echo.may_go_on.set()
        assert (await first).features.tolist() == [[0]]
        answers = [(await other).features.tolist() for other in others]
        assert answers == [[[1], [2]], [[3], [4]], [[5], [6]]]
        assert echo.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert len(echo.threads) == 1

    with_batcher(echo, test)


def test_a_failure_ends_its_own_batch_only() -> None:
    async def test(batcher: Batcher) -> None:
        with pytest.raises(ArithmeticError):
            await batcher.embed([square(13)])
        assert (await batcher.embed([square(14)])).logits.tolist() == [[14]]

    with_batcher(Echo(), test)


def test_images_whose_request_is_gone_are_left_out() -> None:
    echo = Echo()
    echo.may_go_on.clear()

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.embed([square(0)]))
        await until(lambda: bool(echo.batches))
        gone = asyncio.create_task(batcher.embed([square(1)]))
        waiting = asyncio.create_task(batcher.embed([square(2)]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        echo.may_go_on.set()
        await first
        assert (await waiting).features.tolist() == [[2]]
        assert echo.batches == [[0], [2]]

    with_batcher(echo, test)


def test_one_image_more_than_may_wait_is_refused_until_another_is_done() -> None:
    async def test(batcher: Batcher) -> None:
        with batcher.admit(3):
            with pytest.raises(Overloaded, match="at most 4") as refused, batcher.admit(2):
                pass
            assert (refused.value.num_waiting, refused.value.max_waiting) == (3, 4)
            assert refused.value.retry_s >= 1
            with batcher.admit(1):
                assert batcher.num_waiting == 4
        assert batcher.num_waiting == 0

    with_batcher(Echo(), test, max_waiting=4)


def retry_s(batcher: Batcher, num_waiting: int) -> int:
    """After how many seconds a refused request may come again while so many images wait."""
    with (
        batcher.admit(num_waiting),
        pytest.raises(Overloaded, match="try again in") as refused,
        batcher.admit(101),
    ):
        pass
    return refused.value.retry_s


def test_a_refused_request_may_come_again_when_the_waiting_images_are_done() -> None:
    async def test(batcher: Batcher) -> None:
        for _ in range(60):  # enough batches for the average to forget its first guess
            await batcher.embed([square(value) for value in range(4)])
        assert [retry_s(batcher, num_waiting) for num_waiting in (1, 10, 50)] == [2, 20, 100]

    with_batcher(Echo(image_s=2), test)


def test_the_estimate_follows_the_network_and_forgets_one_slow_batch() -> None:
    async def test(batcher: Batcher) -> None:
        before = retry_s(batcher, 50)
        await batcher.embed([square(1)])
        once = retry_s(batcher, 50)
        assert before < once < 100
        await batcher.embed([square(1)])
        assert once < retry_s(batcher, 50) < 100

    with_batcher(Echo(image_s=2), test)


def test_a_refused_request_waits_at_least_a_second() -> None:
    async def test(batcher: Batcher) -> None:
        assert [retry_s(batcher, num_waiting) for num_waiting in (0, 1)] == [1, 1]

    with_batcher(Echo(), test)
