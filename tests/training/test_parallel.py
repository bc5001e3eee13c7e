"""Mapping in threads: the results keep their order, and few items are in memory at once."""

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_the_cores_are_those_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("training.parallel.CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 3, 6}, raising=False)
    assert num_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert num_cores() == 5
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert num_cores() == 1


def test_there_are_never_more_cores_than_in_the_machine() -> None:
    assert 1 <= num_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"cpu.max": "max 100000\n"}, 8, id="version 2, no quota"),
        pytest.param({"cpu.max": "200000 100000\n"}, 2, id="version 2, two cores"),
        pytest.param({"cpu.max": "150000 100000\n"}, 2, id="version 2, one and a half cores"),
        pytest.param({"cpu.max": "5000 100000\n"}, 1, id="version 2, a twentieth of a core"),
        pytest.param({"cpu.max": "6400000 100000\n"}, 8, id="version 2, more than there are"),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
            id="version 1, three cores",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            8,
            id="version 1, no quota",
        ),
        pytest.param({}, 8, id="no control groups"),
    ],
)
def test_a_containers_quota_limits_the_cores(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("training.parallel.CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert num_cores() == expected
