"""Micro-batching: images that arrive while the network is busy form the next batch.

If the network is idle, an image is processed immediately: the batcher does not wait for a full
batch. Only one thread uses the network, because one batch already uses every core.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np

from indexer.embedder import Embedding
from training.data.images import Pixels
from training.errors import UserError

FIRST_IMAGE_S = 0.05
"""Assumed time per image until the first batch has been measured."""
NEWEST_SHARE = 0.2
"""Weight of the newest batch in the moving average of the time per image."""


class Overloaded(UserError):
    """The images are refused because too many images are waiting.

    The client may send them again after `retry_s` seconds.
    """

    def __init__(self, num_waiting: int, max_waiting: int, retry_s: int):
        super().__init__(
            f"{num_waiting} images are waiting and at most {max_waiting} may wait; "
            f"try again in {retry_s} s"
        )
        self.num_waiting = num_waiting
        self.max_waiting = max_waiting
        self.retry_s = retry_s


@dataclass(frozen=True)
class _Waiting:
    square: Pixels
    answer: asyncio.Future[Embedding]


class Batcher:
    """Runs `network` on the images of many requests, in batches of at most `max_batch` images.

    A batcher is an async context manager. Enter it before you await `embed`. `clock` returns
    seconds.
    """

    def __init__(
        self,
        network: Callable[[Pixels], Embedding],
        *,
        max_batch: int,
        max_waiting: int,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._network = network
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._clock = clock
        self._num_admitted = 0
        self._image_s = FIRST_IMAGE_S
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def num_waiting(self) -> int:
        """Number of images that are admitted but not answered yet."""
        return self._num_admitted

    @contextmanager
    def admit(self, num_images: int) -> Iterator[None]:
        """Count images as waiting inside the `with` block.

        The caller enters the block before it decodes the images, and leaves the block when they are
        answered. Raises Overloaded if more than `max_waiting` images would be waiting.
        """
        if self._num_admitted + num_images > self._max_waiting:
            retry_s = max(1, math.ceil(self._num_admitted * self._image_s))
            raise Overloaded(self._num_admitted, self._max_waiting, retry_s)
        self._num_admitted += num_images
        try:
            yield
        finally:
            self._num_admitted -= num_images

    async def embed(self, squares: Sequence[Pixels]) -> Embedding:
        """The logits and features of squares (S, S, 3), in the order of the squares.

        A batch may also contain squares of other requests.
        """
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(square, loop.create_future()) for square in squares]
        for one in waiting:
            self._queue.put_nowait(one)
        answers = await asyncio.gather(*(one.answer for one in waiting))
        return Embedding(
            np.stack([answer.logits for answer in answers]),
            np.stack([answer.features for answer in answers]),
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._max_batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            # If an answer is already done, its request was cancelled.
            batch = [one for one in batch if not one.answer.done()]
            if not batch:
                continue
            squares = [one.square for one in batch]
            answers = await loop.run_in_executor(self._thread, self._forward, squares)
            for one, answer in zip(batch, answers, strict=True):
                _settle(one.answer, answer)

    def _forward(self, squares: Sequence[Pixels]) -> Sequence[Embedding | Exception]:
        """Run one batch. The network's thread calls this.

        Returns one answer per square. If the batch fails, each answer is the error.
        """
        start_s = self._clock()
        try:
            result = self._network(np.stack(squares))
        except Exception as error:
            return [error] * len(squares)
        newest_s = (self._clock() - start_s) / len(squares)
        self._image_s += NEWEST_SHARE * (newest_s - self._image_s)
        return [
            Embedding(logits, features)
            for logits, features in zip(result.logits, result.features, strict=True)
        ]


def _settle(future: asyncio.Future[Embedding], answer: Embedding | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
