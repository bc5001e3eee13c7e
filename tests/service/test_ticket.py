"""Tickets: how long a request may wait, and when it is dropped. No test takes real time."""

import asyncio
from typing import Any

import pytest

from service.ticket import Dropped, Ticket, Timing
from tests.service.virtual_time import run_without_waiting

Answer = asyncio.Future[Any]


def entered(ticket: Ticket) -> Answer:
    """The answer of an image that waits for a stage."""
    answer: Answer = asyncio.get_running_loop().create_future()
    ticket.enter(answer)
    return answer


async def dropped_at_s(ticket: Ticket, answer: Answer) -> float:
    """When a request is dropped while it waits for this answer, in seconds."""
    with pytest.raises(Dropped):
        await answer
    assert ticket.is_dropped
    return asyncio.get_running_loop().time()


def reason_of(answer: Answer) -> str:
    error = answer.exception()
    assert isinstance(error, Dropped)
    return error.reason


def test_a_request_is_dropped_when_it_has_waited_for_its_time() -> None:
    async def test() -> None:
        with Ticket(2.5) as ticket:
            answers = [entered(ticket), entered(ticket)]
            assert await dropped_at_s(ticket, answers[0]) == 2.5
            assert [reason_of(answer) for answer in answers] == ["expired", "expired"]
            assert "has waited for 2.5 s" in str(answers[0].exception())

    run_without_waiting(test)


def test_the_time_before_the_first_stage_counts_as_waiting() -> None:
    async def test() -> None:
        with Ticket(2.0) as ticket:
            await asyncio.sleep(1.5)
            assert await dropped_at_s(ticket, entered(ticket)) == 2.0

    run_without_waiting(test)


def test_a_request_without_images_in_a_stage_is_dropped_too() -> None:
    async def test() -> None:
        with Ticket(2.0) as ticket:
            await asyncio.sleep(2.5)
            with pytest.raises(Dropped, match="has waited"):
                entered(ticket)

    run_without_waiting(test)


def test_the_time_of_the_work_does_not_count() -> None:
    async def test() -> None:
        with Ticket(1.0) as ticket:
            answer = entered(ticket)
            await asyncio.sleep(0.5)
            ticket.start("decode", 0.5)
            await asyncio.sleep(100)
            assert not ticket.is_dropped
            answer.set_result("decoded")
            ticket.finish(answer, "decode", 100)
            assert not ticket.is_dropped

    run_without_waiting(test)


@pytest.mark.parametrize("between_s", [0.0, 30.0])
def test_all_stages_share_one_time_for_waiting(between_s: float) -> None:
    async def test() -> None:
        with Ticket(1.0) as ticket:
            for _ in range(3):
                answer = entered(ticket)
                await asyncio.sleep(0.25)
                ticket.start("stage", 0.25)
                await asyncio.sleep(10)
                answer.set_result("done")
                ticket.finish(answer, "stage", 10)
                await asyncio.sleep(between_s)
            waiting = entered(ticket)
            assert await dropped_at_s(ticket, waiting) == pytest.approx(31 + 3 * between_s)
            assert reason_of(waiting) == "expired"

    run_without_waiting(test)


def test_a_request_does_not_wait_while_one_of_its_images_is_worked_on() -> None:
    async def test() -> None:
        with Ticket(1.0) as ticket:
            first, second, third = (entered(ticket) for _ in range(3))
            ticket.start("stage", 0)
            await asyncio.sleep(5)
            ticket.start("stage", 5)  # in another thread
            ticket.finish(first, "stage", 5)
            await asyncio.sleep(5)
            assert not ticket.is_dropped
            ticket.finish(second, "stage", 5)
            assert await dropped_at_s(ticket, third) == 11

    run_without_waiting(test)


@pytest.mark.parametrize("is_running", [True, False])
def test_the_clients_own_time_ends_a_request_even_while_it_is_worked_on(is_running: bool) -> None:
    async def test() -> None:
        with Ticket(100, timeout_s=3) as ticket:
            answer = entered(ticket)
            if is_running:
                ticket.start("network", 0)
            assert await dropped_at_s(ticket, answer) == 3
            assert reason_of(answer) == "timeout"
            assert "time that its client allows" in str(answer.exception())

    run_without_waiting(test)


def test_a_closed_connection_drops_all_images() -> None:
    async def test() -> None:
        with Ticket(100) as ticket:
            running, waiting = entered(ticket), entered(ticket)
            ticket.start("network", 0)
            ticket.disconnect()
            assert [reason_of(running), reason_of(waiting)] == ["disconnected"] * 2
            ticket.finish(running, "network", 1)
            with pytest.raises(Dropped, match="closed the connection"):
                entered(ticket)

    run_without_waiting(test)


def test_the_first_reason_stays() -> None:
    async def test() -> None:
        with Ticket(1, timeout_s=2) as ticket:
            ticket.disconnect()
            await asyncio.sleep(5)
            with pytest.raises(Dropped) as error:
                entered(ticket)
            assert error.value.reason == "disconnected"

    run_without_waiting(test)


def test_an_image_that_is_answered_already_keeps_its_answer() -> None:
    async def test() -> None:
        with Ticket(1) as ticket:
            answered, waiting = entered(ticket), entered(ticket)
            ticket.start("network", 0)
            answered.set_result("the answer")
            ticket.disconnect()
            assert answered.result() == "the answer"
            assert reason_of(waiting) == "disconnected"

    run_without_waiting(test)


def test_nothing_happens_after_the_end_of_a_request() -> None:
    async def test() -> None:
        with Ticket(1, timeout_s=2) as ticket:
            running, cancelled = entered(ticket), entered(ticket)
            ticket.start("network", 0)
            cancelled.cancel()  # as a stage does when a request is cancelled
            running.cancel()
        ticket.finish(running, "network", 1)
        await asyncio.sleep(100)
        assert not ticket.is_dropped

    run_without_waiting(test)


def test_the_times_are_the_longest_of_all_images_for_each_stage() -> None:
    async def test() -> None:
        with Ticket(100) as ticket:
            for wait_s, run_s in ((1, 5), (4, 2)):
                answer = entered(ticket)
                ticket.start("decode", wait_s)
                ticket.finish(answer, "decode", run_s)
            answer = entered(ticket)
            ticket.start("network", 3)
            ticket.finish(answer, "network", 7)
        assert ticket.timings == {"decode": Timing(4, 5), "network": Timing(3, 7)}

    run_without_waiting(test)
