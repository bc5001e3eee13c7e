"""One budget of memory for all images that this process decodes at the same time."""

import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from training.parallel import num_cores

MAX_DECODE_BYTES = 260_000_000
"""Maximum memory for decoding one image. An image of 50 megapixels in RGB takes
200 MB, and up to 50 MB for the reduced image."""
BYTES_PER_CORE = 64_000_000
"""On a machine with more than four cores, the budget grows by this for each core."""
LARGE_BYTES = 32_000_000
"""An image is large if decoding it takes more memory. Before and after that, freed memory is given
back to the system. Otherwise, the GNU C library keeps it, and the memory of several decodes and
uploads adds up."""


class MemoryBudget:
    """Lends memory to threads, in the order in which they ask. Safe to use from several threads.

    So the sum of all that is lent never exceeds `num_bytes`, and large and small requests wait
    equally.
    """

    def __init__(self, num_bytes: int):
        self.num_bytes = num_bytes
        self._free = num_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, num_bytes: int) -> Iterator[None]:
        """Wait until `num_bytes` are free, and keep them in the `with` block.

        A request for more than the whole budget waits for all of it.
        """
        wanted, turn = min(num_bytes, self.num_bytes), object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= wanted)
                self._free -= wanted
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            if num_bytes > LARGE_BYTES:
                give_back_freed_memory()
            yield
        finally:
            if num_bytes > LARGE_BYTES:
                give_back_freed_memory()
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def give_back_freed_memory() -> None:
    """Give freed memory back to the system. Other C libraries than GNU's do this by themselves."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


decoding = MemoryBudget(max(MAX_DECODE_BYTES, BYTES_PER_CORE * num_cores()))
"""The budget of all decodes of this process: training, index builds and the service."""
