"""Admission: refuse requests that would wait too long, before their images are read.

The predicted wait of a request is the number of images ahead of it, times the time per image. The
time per image is measured while the service is busy.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.ticket import Ticket
from training.errors import UserError

FIRST_IMAGE_S = 0.05
"""Assumed time per image until images have been measured."""
DECAY = 0.98
"""Factor by which the weight of earlier images shrinks with each image."""
TOGETHER = 0.25
"""Images count as finished together if less than this share of the time per image lies between
them."""


class Overloaded(UserError):
    """A request is refused. The client may send it again after `retry_s` seconds."""

    def __init__(self, text: str, retry_s: int):
        super().__init__(f"{text}; try again in {retry_s} s")
        self.retry_s = retry_s


class Admission:
    """Counts the admitted images, and predicts how long the next one will wait.

    At most `max_waiting` images are admitted at the same time, and a request may wait for
    `max_wait_s` seconds. The bodies of at most `max_uploads` requests arrive at the same time.
    `clock` returns seconds, and `jitter` a random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        max_waiting: int,
        max_wait_s: float,
        max_uploads: int = 256,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ):
        self.max_waiting, self.max_wait_s = max_waiting, max_wait_s
        self._max_uploads = max_uploads
        self._clock, self._jitter = clock, jitter
        self.num_uploading = 0
        """Number of requests whose bodies are arriving."""
        self.num_waiting = 0
        """Number of images that are admitted but not answered yet."""
        self._busy_s, self._num_finished = FIRST_IMAGE_S, 1.0
        self._num_together = 0
        """Number of images that were finished together with the last one."""
        self._last_s = 0.0
        """When an image was finished last, or when the service became busy."""

    @property
    def image_s(self) -> float:
        """The time per image while the service is busy, in seconds. It is a moving average."""
        return self._busy_s / self._num_finished

    @property
    def predicted_wait_s(self) -> float:
        """How long a request that is admitted now will wait, in seconds."""
        return self.num_waiting * self.image_s

    def check(self, num_images: int = 1, timeout_s: float | None = None) -> None:
        """Raise Overloaded if a request cannot be admitted now.

        `timeout_s` is the time in which the client wants its answer. None means any time.
        """
        wait_s = self.predicted_wait_s
        limit_s = self.max_wait_s if timeout_s is None else min(self.max_wait_s, timeout_s)
        if self.num_waiting + num_images > self.max_waiting:
            raise Overloaded(
                f"{self.num_waiting} images are waiting and at most {self.max_waiting} may wait",
                self.retry_s(),
            )
        if wait_s > limit_s:
            raise Overloaded(
                f"the request would wait for about {wait_s:.1f} s and may wait for {limit_s:g} s",
                self.retry_s(),
            )

    def retry_s(self) -> int:
        """After how many seconds a refused client may send its request again.

        The time contains chance. Otherwise all refused clients would come back together.
        """
        return math.ceil(max(1.0, self.predicted_wait_s) * (1 + self._jitter()))

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Count a request whose body arrives inside the `with` block. Raises Overloaded."""
        if self.num_uploading >= self._max_uploads:
            raise Overloaded(
                f"{self.num_uploading} requests are arriving, and no more are accepted",
                self.retry_s(),
            )
        self.num_uploading += 1
        try:
            yield
        finally:
            self.num_uploading -= 1

    @contextmanager
    def admit(self, num_images: int, timeout_s: float | None = None) -> Iterator[Ticket]:
        """Count images as waiting inside the `with` block, and yield the ticket of the request.

        The caller enters the block before it decodes the images, and leaves it when they are
        answered. Raises Overloaded.
        """
        self.check(num_images, timeout_s)
        if not self.num_waiting:
            self._last_s = self._clock()
        self.num_waiting += num_images
        ticket = Ticket(self.max_wait_s, timeout_s)
        try:
            with ticket:
                yield ticket
        finally:
            self._count(0 if ticket.is_dropped else num_images)
            self.num_waiting -= num_images

    def _count(self, num_images: int) -> None:
        """Count finished images, and the time since the last ones were finished.

        The images of a batch are finished together, and the time before the first of them was
        spent on all of them. So they must have the same weight as this time.
        """
        now_s = self._clock()
        elapsed_s, self._last_s = now_s - self._last_s, now_s
        if elapsed_s > TOGETHER * self.image_s:
            weight = DECAY**self._num_together
            self._busy_s *= weight
            self._num_finished *= weight
            self._num_together = 0
        self._busy_s += elapsed_s
        self._num_finished += num_images
        self._num_together += num_images
