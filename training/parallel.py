"""Count the usable cores, and apply a function to items in threads, ahead of the consumer."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CGROUP = Path("/sys/fs/cgroup")
"""The folder where Linux mounts the control groups of a container."""


def num_cores() -> int:
    """Number of cores that this process may use.

    A scheduler can restrict a process to some of the machine's cores, and a container can have a
    quota of CPU time. A quota of 1.5 cores counts as 2.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    num_allowed = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(num_allowed, _cpu_quota())))


def _cpu_quota() -> float:
    """The number of cores that the container's control group allows. Without a quota, infinity."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            names = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")  # version 1
            quota, period = ((CGROUP / name).read_text().strip() for name in names)
        except OSError:
            return math.inf
    if quota in ("max", "-1"):
        return math.inf
    return int(quota) / int(period)


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """Apply `function` to each item in the pool's threads. The results keep the items' order.

    While the consumer uses a result, the pool works on at most `ahead` further items. So memory
    stays bounded even if the consumer is slow. `pool.map` has no such limit.
    """
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
