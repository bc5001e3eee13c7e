"""Mapping in threads: the results keep their order, and few items are in memory at once."""

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from training.parallel import map_ahead, num_cores


def test_results_are_in_order_even_if_the_first_takes_longest() -> None:
    others_are_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert others_are_done.wait(timeout=30)
        elif number == 5:
            others_are_done.set()
        return number

    with ThreadPoolExecutor(2) as pool:
        assert list(map_ahead(pool, work, range(6), ahead=6)) == [0, 1, 2, 3, 4, 5]


def test_only_a_few_items_are_taken_ahead_of_the_consumer() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda number: number, endless(), ahead=3)
        for consumed in range(1, 50):
            next(results)
            assert len(taken) == consumed + 3


def test_an_error_in_a_thread_is_raised_when_its_result_is_taken() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda number: 6 // (2 - number), range(4), ahead=8)
        assert [next(results), next(results)] == [3, 6]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 3, 6}, raising=False)
    assert num_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert num_cores() == 5
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert num_cores() == 1


def test_there_are_never_more_cores_than_in_the_machine() -> None:
    assert 1 <= num_cores() <= (os.cpu_count() or 1)
