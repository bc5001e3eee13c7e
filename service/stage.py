"""A stage: work of many requests, done in threads, in batches.

If a thread is idle, work is started immediately: a stage does not wait for a full batch. Work that
arrives while all threads are busy forms the next batches.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, Self, TypeVar

from service.ticket import Dropped, Ticket

Key = TypeVar("Key")
Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Batch:
    """The figures of a finished batch."""

    stage: str
    waits_s: Sequence[float]
    """How long each piece of work waited."""
    run_s: float
    """How long the batch took."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Key, Work, Answer]):
    key: Key
    work: Work
    ticket: Ticket
    answer: "asyncio.Future[Answer]"
    since_s: float


class Stage(Generic[Key, Work, Answer]):
    """Calls `run(key, works)` in threads, for batches of work that have the same key.

    `run` returns one answer for each piece of work, in order. If it fails for a batch, it is called
    again for each piece of work alone, so only the work that cannot be done fails. `on_batch` is
    called after each batch. A stage is an async context manager. Enter it before you call `do`.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Key, Sequence[Work]], Sequence[Answer]],
        *,
        num_threads: int = 1,
        max_batch: int = 1,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ):
        self.name = name
        self._run, self._on_batch = run, on_batch
        self._num_threads, self._max_batch = num_threads, max_batch
        self._queue: deque[_Waiting[Key, Work, Answer]] = deque()
        self._is_scheduled = False
        self._num_started = 0
        self._running_since_s: dict[int, float] = {}
        """When each running batch was started, by its number."""
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    @property
    def busy_s(self) -> float:
        """How long the longest running batch has been running, in seconds."""
        now_s = time.monotonic()
        return now_s - min(self._running_since_s.values(), default=now_s)

    async def do(
        self, key: Key, works: Sequence[Work], ticket: Ticket
    ) -> list[Answer | BaseException]:
        """Do the work of a request, and return one answer or error for each piece, in order.

        A batch may also contain work of other requests. Raises Dropped if the request is dropped.
        """
        waiting = []
        for work in works:
            answer = self._loop.create_future()
            ticket.enter(answer)
            waiting.append(_Waiting(key, work, ticket, answer, time.monotonic()))
        self._queue.extend(waiting)
        self._schedule()
        answers = [one.answer for one in waiting]
        try:
            await asyncio.wait(answers)
        finally:
            for answer in answers:  # if this request was cancelled
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # asyncio complains about errors that nobody looks at
        outcomes = [answer.exception() or answer.result() for answer in answers]
        for outcome in outcomes:
            if isinstance(outcome, Dropped):
                raise outcome
        return outcomes

    def _schedule(self) -> None:
        """Start batches when everything has arrived that arrives at the same moment."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._is_scheduled = False
        while self._queue and len(self._running_since_s) < self._num_threads:
            batch = self._take_batch()
            if not batch:
                continue
            self._num_started += 1
            number, now_s = self._num_started, time.monotonic()
            self._running_since_s[number] = now_s
            for one in batch:
                one.ticket.start(self.name, now_s - one.since_s)
            works = [one.work for one in batch]
            done = self._loop.run_in_executor(self._threads, self._answers, batch[0].key, works)
            done.add_done_callback(partial(self._finish, number, batch))

    def _take_batch(self) -> list[_Waiting[Key, Work, Answer]]:
        """Take the oldest work from the queue, and other work with the same key."""
        batch: list[_Waiting[Key, Work, Answer]] = []
        others: list[_Waiting[Key, Work, Answer]] = []
        while self._queue and len(batch) < self._max_batch:
            one = self._queue.popleft()
            if one.answer.done():  # its request was dropped or cancelled
                continue
            (batch if not batch or one.key == batch[0].key else others).append(one)
        self._queue.extendleft(reversed(others))
        return batch

    def _answers(self, key: Key, works: Sequence[Work]) -> Sequence[Answer | Exception]:
        """Run a batch. A thread of the stage calls this."""
        try:
            answers = self._run(key, works)
            if len(answers) != len(works):
                raise RuntimeError(f"{self.name}: {len(answers)} answers for {len(works)} images")
        except Exception as error:
            if len(works) > 1:
                return [answer for work in works for answer in self._answers(key, [work])]
            return [error]
        return answers

    def _finish(
        self,
        number: int,
        batch: Sequence[_Waiting[Key, Work, Answer]],
        done: "asyncio.Future[Sequence[Answer | Exception]]",
    ) -> None:
        since_s = self._running_since_s.pop(number)
        self._schedule()
        run_s = time.monotonic() - since_s
        failure = done.exception()
        answers = [failure] * len(batch) if failure else done.result()
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                _settle(one.answer, answer)
            one.ticket.finish(one.answer, self.name, run_s)
        self._on_batch(Batch(self.name, [since_s - one.since_s for one in batch], run_s))


def _settle(future: "asyncio.Future[Answer]", answer: Answer | BaseException) -> None:
    if isinstance(answer, StopIteration):  # a future refuses it
        answer = RuntimeError("StopIteration")
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
