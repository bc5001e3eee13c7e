"""Treat Ctrl-C and SIGTERM as a request to stop.

The program finishes its current step and saves its work before it ends.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the program has been asked to stop."""

    def __init__(self) -> None:
        self.is_made = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Record the first SIGINT or SIGTERM in a StopRequest. The second raises KeyboardInterrupt.

    At the end of the `with` block, the previous signal handlers are restored. Outside the main
    thread, no handler is set, because Python allows only the main thread to set handlers.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.is_made:
            raise KeyboardInterrupt
        request.is_made = True

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
