"""Micro-batching: images that arrive while the network is busy go through it together, up to a limit.

A lone image runs at once; nothing waits for a batch to fill. One thread owns the network: a batch already uses every core.
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
from service.api.problems import ProblemError
from training.data.images import Pixels


@dataclass(frozen=True)
class _Waiting:
    square: Pixels
    answer: asyncio.Future[Embedding]


class Batcher:
    """Feeds `embed` from many requests; an async context manager, which must be entered before `embed` is awaited."""

    def __init__(self, embed: Callable[[Pixels], Embedding], *, max_batch: int, max_waiting: int):
        self._embed = embed
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._num_admitted = 0
        self._image_s = 0.05  # what an image takes; a guess until the first are timed
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
        """The images that hold a place."""
        return self._num_admitted

    @contextmanager
    def admit(self, num_images: int) -> Iterator[None]:
        """Holds places for images from before they are decoded until they are answered; raises ProblemError if there are none left."""
        if self._num_admitted + num_images > self._max_waiting:
            retry_s = max(1, math.ceil(self._num_admitted * self._image_s))
            raise ProblemError(
                "overloaded",
                f"{self._num_admitted} images are waiting and at most {self._max_waiting} may; try again in {retry_s} s",
                headers={"Retry-After": str(retry_s)},
            )
        self._num_admitted += num_images
        try:
            yield
        finally:
            self._num_admitted -= num_images

    async def embed(self, squares: Sequence[Pixels]) -> Embedding:
        """Logits and features of squares (S, S, 3), in their order, perhaps in batches shared with other requests."""
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
            batch = [
                one for one in batch if not one.answer.done()
            ]  # the others were cancelled while they waited
            if batch:
                answers = await loop.run_in_executor(
                    self._thread, self._forward, [one.square for one in batch]
                )
                for one, answer in zip(batch, answers, strict=True):
                    _settle(one.answer, answer)

    def _forward(self, squares: Sequence[Pixels]) -> Sequence[Embedding | Exception]:
        """In the network's thread: an answer for each square, or what went wrong for all of them."""
        start_s = time.perf_counter()
        try:
            result = self._embed(np.stack(squares))
        except Exception as error:
            return [error] * len(squares)
        self._image_s += 0.2 * ((time.perf_counter() - start_s) / len(squares) - self._image_s)
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
