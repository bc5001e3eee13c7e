"""An event loop whose clock jumps to the next timer, so that tests of long times take no time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time passes only while all tasks wait. Threads cannot be used with it."""

    def __init__(self) -> None:
        self._now_s = 0.0
        selector = selectors.DefaultSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            assert timeout is not None, "nothing will ever happen again"
            self._now_s += timeout
            return select(0)

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self._now_s


def run_without_waiting(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test in a JumpingLoop."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(test())
