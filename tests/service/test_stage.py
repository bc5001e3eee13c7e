"""Stages: batches of the work of many requests, on work that notes its batches."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.stage import Batch, Stage
from service.ticket import Dropped, Ticket

PATIENCE_S = 60
LONG_S = 1000.0
Outcomes = list[int | BaseException]
Note = list[list[int]]


class Doubling:
    """Work that doubles numbers. It notes its batches, and waits while it is held.

    It fails for a number in `errors`, and for the whole batch of that number. It gives one answer
    too few or too many for a batch with a number in `lengths`.
    """

    def __init__(self) -> None:
        self.batches: Note = []
        self.keys: list[str] = []
        self.threads: set[int] = set()
        self.errors: dict[int, BaseException] = {}
        self.lengths: dict[int, int] = {}
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, key: str, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.keys.append(key)
        self.threads.add(threading.get_ident())
        assert self.may_go_on.wait(PATIENCE_S)
        for number in numbers:
            if number in self.errors:
                raise self.errors[number]
        answers = [2 * number for number in numbers]
        for number in numbers:
            change = self.lengths.get(number, 0)
            answers = answers[:change] if change < 0 else answers + [0] * change
        return answers


class Running:
    """A running stage, and requests to it."""

    def __init__(self, stage: Stage[str, int, int], work: Doubling):
        self.stage, self.work = stage, work

    def ask(self, *numbers: int, key: str = "", ticket: Ticket | None = None) -> Any:
        """A request as a task. Its ticket never ends, unless another one is given."""

        async def request() -> Outcomes:
            with ticket or Ticket(LONG_S) as one:
                return await self.stage.do(key, numbers, one)

        return asyncio.create_task(request())

    async def hold(self) -> Any:
        """Start a batch with the number 0 that runs until `release` is called."""
        self.work.may_go_on.clear()
        num_batches = len(self.work.batches)
        held = self.ask(0)
        await until(lambda: len(self.work.batches) > num_batches)
        return held

    def release(self) -> None:
        self.work.may_go_on.set()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.005)


async def turn() -> None:
    """Let everything run that can run now."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[Running], Awaitable[None]], **options: Any) -> list[dict[str, Any]]:
    """Run an asynchronous test of a stage. Returns what asyncio complained about."""
    complaints: list[dict[str, Any]] = []

    async def run_test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, one: complaints.append(one))
        work = Doubling()
        try:
            async with Stage("double", work, **{"max_batch": 4, **options}) as stage:
                await test(Running(stage, work))
        finally:
            work.may_go_on.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "tasks are left"

    asyncio.run(run_test())
    gc.collect()  # a future complains when it is deleted
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("double")]
    return complaints


def test_a_lone_piece_of_work_starts_at_once() -> None:
    async def test(running: Running) -> None:
        assert await running.ask(7) == [14]
        assert running.work.batches == [[7]]

    assert not run(test, max_batch=100)


def test_work_that_arrives_at_the_same_moment_is_one_batch() -> None:
    async def test(running: Running) -> None:
        asked = [running.ask(1), running.ask(2, 3)]
        assert [await one for one in asked] == [[2], [4, 6]]
        assert running.work.batches == [[1, 2, 3]]

    assert not run(test)


def test_work_that_arrives_while_a_batch_runs_forms_the_next_up_to_the_limit() -> None:
    async def test(running: Running) -> None:
        held = await running.hold()
        asked = [running.ask(number, number + 1) for number in (1, 3, 5)]
        await turn()
        running.release()
        assert await held == [0]
        assert [await one for one in asked] == [[2, 4], [6, 8], [10, 12]]
        assert running.work.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert len(running.work.threads) == 1

    assert not run(test)


def test_only_work_with_the_same_key_shares_a_batch_and_the_order_is_kept() -> None:
    async def test(running: Running) -> None:
        held = await running.hold()
        keys = "abacbaa"
        asked = [running.ask(number, key=key) for number, key in enumerate(keys, 1)]
        await turn()
        running.release()
        await held
        assert [await one for one in asked] == [[2 * number] for number in range(1, 8)]
        assert running.work.batches[1:] == [[1, 3, 6], [2, 5], [4], [7]]
        assert running.work.keys[1:] == ["a", "b", "c", "a"]

    assert not run(test, max_batch=3)


def test_batches_run_at_the_same_time_in_several_threads_but_not_in_more() -> None:
    async def test(running: Running) -> None:
        running.work.may_go_on.clear()
        asked = [running.ask(number) for number in range(5)]
        await until(lambda: len(running.work.batches) == 2)
        await asyncio.sleep(0.05)
        assert running.work.batches == [[0], [1]]
        running.release()
        assert [await one for one in asked] == [[0], [2], [4], [6], [8]]
        assert len(running.work.threads) == 2

    assert not run(test, max_batch=1, num_threads=2)


@pytest.mark.parametrize("position", range(4))
def test_an_error_fails_its_own_work_only(position: int) -> None:
    async def test(running: Running) -> None:
        error = ArithmeticError("poison")
        running.work.errors[position + 1] = error
        held = await running.hold()
        asked = [running.ask(1, 2), running.ask(3), running.ask(4)]
        await turn()
        running.release()
        await held
        answers = [answer for one in asked for answer in await one]
        expected: Outcomes = [2, 4, 6, 8]
        expected[position] = error
        assert answers == expected
        assert running.work.batches[1:] == [[1, 2, 3, 4], [1], [2], [3], [4]]

    assert not run(test)


def test_an_error_of_a_lone_piece_of_work_is_not_tried_twice() -> None:
    async def test(running: Running) -> None:
        running.work.errors[1] = ArithmeticError("poison")
        assert await running.ask(1) == [running.work.errors[1]]
        assert await running.ask(2) == [4]
        assert running.work.batches == [[1], [2]]

    assert not run(test)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_result_of_the_wrong_length_fails_its_own_work_only(change: int) -> None:
    async def test(running: Running) -> None:
        running.work.lengths[2] = change
        first, second, third = running.ask(1), running.ask(2), running.ask(3)
        assert await first == [2]
        (error,) = await second
        assert isinstance(error, RuntimeError)
        assert f"double: {1 + change} answers for 1 images" in str(error)
        assert await third == [6]
        assert await running.ask(4) == [8]

    assert not run(test)


def test_a_stop_iteration_is_an_error_like_others() -> None:
    async def test(running: Running) -> None:
        running.work.errors[1] = StopIteration("no more")
        first, second = running.ask(1), running.ask(2)
        async with asyncio.timeout(PATIENCE_S):
            (error,) = await first
            assert isinstance(error, RuntimeError)
            assert await second == [4]

    assert not run(test)


def test_an_error_that_is_not_an_exception_fails_the_batch_and_the_stage_goes_on() -> None:
    class Stop(BaseException):
        pass

    async def test(running: Running) -> None:
        running.work.errors[1] = stop = Stop()
        first, second = running.ask(1), running.ask(2)
        assert (await first, await second) == ([stop], [stop])
        assert await running.ask(3) == [6]

    assert not run(test)


def test_cancelled_requests_are_left_out_before_they_start() -> None:
    async def test(running: Running) -> None:
        held = await running.hold()
        gone = [running.ask(1), running.ask(2, 3, 4, 5, 6)]
        waiting = running.ask(7)
        await turn()
        for one in gone:
            one.cancel()
        await turn()
        assert all(one.cancelled() for one in gone)
        running.release()
        await held
        assert await waiting == [14]
        assert running.work.batches == [[0], [7]]

    assert not run(test)


def test_a_request_that_is_cancelled_while_it_runs_does_not_disturb_others() -> None:
    async def test(running: Running) -> None:
        running.work.errors[1] = ArithmeticError("poison")
        running.work.may_go_on.clear()
        gone, other = running.ask(1), running.ask(2)
        await until(lambda: running.work.batches == [[1, 2]])
        gone.cancel()
        running.release()
        assert await other == [4]
        assert gone.cancelled()

    assert not run(test)


def test_an_error_that_arrives_together_with_a_cancellation_is_not_complained_about() -> None:
    async def test(running: Running) -> None:
        ticket = Ticket(LONG_S)
        held = await running.hold()
        gone = running.ask(1, 2, ticket=ticket)
        await turn()
        ticket.disconnect()
        gone.cancel()
        await turn()
        assert gone.cancelled()
        running.release()
        await held

    assert not run(test)


def test_a_request_that_waits_too_long_is_dropped_while_the_batch_before_it_still_runs() -> None:
    async def test(running: Running) -> None:
        held = await running.hold()
        start_s = time.monotonic()
        with pytest.raises(Dropped, match="has waited") as error:
            await running.ask(1, ticket=Ticket(0.1))
        assert error.value.reason == "expired"
        assert time.monotonic() - start_s >= 0.09
        assert not running.work.may_go_on.is_set()
        running.release()
        assert await held == [0]
        assert await running.ask(2) == [4]
        assert running.work.batches == [[0], [2]]

    assert not run(test)


def test_the_time_in_which_a_request_is_worked_on_does_not_count_as_waiting() -> None:
    async def test(running: Running) -> None:
        running.work.may_go_on.clear()
        asked = running.ask(1, ticket=Ticket(2.0))
        await until(lambda: bool(running.work.batches))
        await asyncio.sleep(2.2)
        running.release()
        assert await asked == [2]

    assert not run(test)


def test_a_client_that_has_gone_ends_a_request_while_it_is_worked_on() -> None:
    async def test(running: Running) -> None:
        ticket = Ticket(LONG_S)
        running.work.may_go_on.clear()
        asked = running.ask(1, 2, 3, 4, 5, ticket=ticket)
        await until(lambda: bool(running.work.batches))
        ticket.disconnect()
        with pytest.raises(Dropped):
            await asked
        running.release()
        assert await running.ask(6) == [12]
        assert running.work.batches == [[1, 2, 3, 4], [6]]

    assert not run(test)


def test_the_clients_own_time_ends_a_request_while_it_is_worked_on() -> None:
    async def test(running: Running) -> None:
        running.work.may_go_on.clear()
        with pytest.raises(Dropped) as error:
            await running.ask(1, ticket=Ticket(LONG_S, timeout_s=0.05))
        assert error.value.reason == "timeout"
        running.release()

    assert not run(test)


def test_a_dropped_request_does_not_enter_a_stage() -> None:
    async def test(running: Running) -> None:
        ticket = Ticket(LONG_S)
        with ticket:
            ticket.disconnect()
            with pytest.raises(Dropped):
                await running.stage.do("", [1, 2], ticket)
        await turn()
        assert running.work.batches == []

    assert not run(test)


def test_a_stage_says_how_long_its_oldest_batch_has_been_running() -> None:
    async def test(running: Running) -> None:
        assert running.stage.busy_s == 0
        held = await running.hold()
        await asyncio.sleep(0.2)
        busy_s = running.stage.busy_s
        assert 0.15 <= busy_s < PATIENCE_S
        running.ask(1)  # in the other thread
        await until(lambda: len(running.work.batches) == 2)
        assert running.stage.busy_s >= busy_s
        running.release()
        await held
        await until(lambda: running.stage.busy_s == 0)

    assert not run(test, num_threads=2)


def test_a_stage_measures_each_batch() -> None:
    batches: list[Batch] = []

    async def test(running: Running) -> None:
        ticket = Ticket(LONG_S)
        held = await running.hold()
        asked = running.ask(1, 2, ticket=ticket)
        await asyncio.sleep(0.2)
        running.release()
        await held
        await asked
        await turn()
        first, second = batches
        assert (first.stage, len(first.waits_s), len(second.waits_s)) == ("double", 1, 2)
        assert first.run_s >= 0.19
        assert min(second.waits_s) >= 0.19
        assert first.waits_s[0] < second.waits_s[0]
        timing = ticket.timings["double"]
        assert timing.wait_s == max(second.waits_s)
        assert timing.run_s == second.run_s

    assert not run(test, on_batch=batches.append)


def release_later(running: Running) -> None:
    time.sleep(0.2)
    running.release()


def test_a_stage_that_ends_waits_for_its_work() -> None:
    with ThreadPoolExecutor(1) as helper:

        async def test(running: Running) -> None:
            held = await running.hold()
            held.cancel()
            waiting = running.ask(1)
            await turn()
            waiting.cancel()
            await turn()
            helper.submit(release_later, running)

        assert not run(test)
