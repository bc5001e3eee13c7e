"""Ctrl-C and SIGTERM as a request: a step is finished and the run saved before the program ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether someone has asked the program to stop."""

    def __init__(self) -> None:
        self.is_made = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Notes the first SIGINT or SIGTERM; a second one interrupts at once. In other threads than the main one, signals stay as they are."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.is_made:
            raise KeyboardInterrupt
        request.is_made = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
