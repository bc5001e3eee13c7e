"""A ticket: one admitted request, from its admission to its answer.

A request is dropped if its client has gone, if it has waited too long, or if the client's own time
is over. Images of a dropped request are not started. Work that is already running goes on, but its
result is not used.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal, Self

from training.errors import UserError

DropReason = Literal["expired", "timeout", "disconnected"]


class Dropped(UserError):
    """The request was dropped before it was answered."""

    def __init__(self, reason: DropReason, text: str):
        super().__init__(text)
        self.reason: DropReason = reason


@dataclass
class Timing:
    """How long the images of a request waited for a stage, and how long the stage took.

    If there are several images, these are the longest times.
    """

    wait_s: float = 0.0
    run_s: float = 0.0


class Ticket:
    """A context manager for the time between the admission of a request and its answer.

    The request may wait for `max_wait_s` seconds. The time in which one of its images is worked on
    does not count. It is dropped in any case after `timeout_s` seconds.
    """

    def __init__(self, max_wait_s: float, timeout_s: float | None = None):
        self.timings: dict[str, Timing] = {}
        """The times of each stage, by the name of the stage."""
        self._max_wait_s, self._left_s, self._timeout_s = max_wait_s, max_wait_s, timeout_s
        self._unfinished: set[asyncio.Future[Any]] = set()
        self._num_running = 0
        self._dropped: Dropped | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wait_on()
        self._end = None
        if self._timeout_s is not None:
            self._end = self._loop.call_later(self._timeout_s, self._time_out)
        return self

    def __exit__(self, *exception: object) -> None:
        self._unfinished.clear()  # work that is still running must not start the timer again
        self._expiry.cancel()
        if self._end:
            self._end.cancel()

    @property
    def is_dropped(self) -> bool:
        return self._dropped is not None

    def enter(self, answer: "asyncio.Future[Any]") -> None:
        """Note that an image waits for a stage. Raises Dropped if the request was dropped."""
        if self._dropped:
            raise self._dropped
        self._unfinished.add(answer)
        if self._expiry.cancelled() and not self._num_running:  # it waits for a second stage
            self._wait_on()

    def start(self, stage: str, wait_s: float) -> None:
        """Note that a stage has started to work on an image."""
        timing = self.timings.setdefault(stage, Timing())
        timing.wait_s = max(timing.wait_s, wait_s)
        if not self._num_running:
            self._expiry.cancel()
            self._left_s = max(0.0, self._expiry.when() - self._loop.time())
        self._num_running += 1

    def finish(self, answer: "asyncio.Future[Any]", stage: str, run_s: float) -> None:
        """Note that a stage has finished an image."""
        timing = self.timings[stage]
        timing.run_s = max(timing.run_s, run_s)
        self._unfinished.discard(answer)
        self._num_running -= 1
        if not self._num_running and self._unfinished:
            self._wait_on()

    def disconnect(self) -> None:
        """Drop the request, because nobody waits for its answer any more."""
        self._drop(Dropped("disconnected", "the client closed the connection"))

    def _wait_on(self) -> None:
        """Let the time that the request may wait run on."""
        self._expiry = self._loop.call_later(self._left_s, self._expire)

    def _expire(self) -> None:
        text = f"the request has waited for {self._max_wait_s:g} s, and may wait no longer"
        self._drop(Dropped("expired", f"{text}; send it again later"))

    def _time_out(self) -> None:
        text = "the request was not answered within the time that its client allows"
        self._drop(Dropped("timeout", f"{text}; send it again later, or with more time"))

    def _drop(self, error: Dropped) -> None:
        self._dropped = self._dropped or error
        for answer in self._unfinished:
            if not answer.done():
                answer.set_exception(error)
        self._unfinished.clear()
