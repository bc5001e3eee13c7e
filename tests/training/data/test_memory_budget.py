"""The budget of memory that all decodes share."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from training.data.memory_budget import MAX_DECODE_BYTES, MemoryBudget, decoding


def test_the_sum_of_all_loans_never_exceeds_the_budget() -> None:
    budget, lock, lent, most = MemoryBudget(100), threading.Lock(), [0], [0]

    def work(num_bytes: int) -> None:
        with budget.lend(num_bytes):
            with lock:
                lent[0] += num_bytes
                most[0] = max(most[0], lent[0])
            time.sleep(0.001)
            with lock:
                lent[0] -= num_bytes

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 70, 100, 1, 50] * 40))
    assert 70 <= most[0] <= 100


def test_a_loan_of_more_than_the_budget_takes_all_of_it() -> None:
    budget, started = MemoryBudget(100), threading.Event()

    def small() -> None:
        with budget.lend(1):
            started.set()

    with budget.lend(1000):
        thread = threading.Thread(target=small)
        thread.start()
        assert not started.wait(0.05)
    thread.join(10)
    assert started.is_set()


def test_the_loans_are_given_in_the_order_of_the_requests() -> None:
    budget, order = MemoryBudget(100), list[int]()

    def work(number: int, num_bytes: int) -> None:
        with budget.lend(num_bytes):
            order.append(number)

    threads = []
    with budget.lend(60):
        for number, num_bytes in enumerate((90, 10, 100, 1)):  # 10 would fit, but comes later
            threads.append(threading.Thread(target=work, args=(number, num_bytes)))
            threads[-1].start()
            while len(budget._waiting) <= number:
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order.index(0) == 0
    assert order.index(2) < order.index(3)


def test_a_failed_decode_gives_its_memory_back() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(ValueError, match="damaged"), budget.lend(100):
        raise ValueError("damaged")
    with budget.lend(100):
        pass


def test_the_budget_of_this_process_suffices_for_the_largest_image() -> None:
    assert decoding.num_bytes >= MAX_DECODE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_given_back_after_a_large_loan() -> None:
    """In a process of its own: in this one, earlier tests may have left free memory to reuse."""
    subprocess.run([sys.executable, "-c", MEMORY_OF_A_LOAN], check=True, timeout=120)


MEMORY_OF_A_LOAN = """
import resource
from pathlib import Path

from training.data.memory_budget import LARGE_BYTES, MemoryBudget


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


rest, pieces = resident_bytes(), [bytearray(b"x" * 60_000) for _ in range(3000)]
last = bytearray(60_000)  # keeps the end of the heap in use
assert resident_bytes() - rest > 150_000_000
del pieces
with MemoryBudget(100_000_000).lend(LARGE_BYTES + 1):
    pass
assert resident_bytes() - rest < 60_000_000
"""
