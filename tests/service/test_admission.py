"""Admission: which requests are refused, with a clock and a chance of its own."""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from service.admission import FIRST_IMAGE_S, Admission, Overloaded
from service.ticket import Dropped
from tests.service.virtual_time import run_without_waiting


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Desk:
    """An admission with a clock that the test moves."""

    def __init__(self, **settings: Any):
        self.clock = Clock()
        options = {"max_waiting": 1000, "max_wait_s": 1e6, "jitter": lambda: 0.0, **settings}
        self.admission = Admission(clock=self.clock, **options)

    def work(self, num_images: int, seconds: float, *, times: int = 1) -> None:
        """Answer requests one after the other. Each one takes this time."""
        for _ in range(times):
            with self.admission.admit(num_images):
                self.clock.now_s += seconds

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds


def at_desk(**settings: Any) -> Callable[[Callable[[Desk], Any]], Callable[[], None]]:
    """Run a test, which may be asynchronous, with a new desk inside an event loop."""

    def decorate(test: Callable[[Desk], Any]) -> Callable[[], None]:
        def decorated() -> None:
            async def run() -> None:
                outcome = test(Desk(**settings))
                if inspect.isawaitable(outcome):
                    await outcome

            run_without_waiting(run)

        decorated.__name__ = test.__name__
        return decorated

    return decorate


@at_desk(max_waiting=4)
def test_more_images_than_may_wait_are_refused(desk: Desk) -> None:
    admission = desk.admission
    with admission.admit(3):
        with pytest.raises(Overloaded, match="3 images are waiting and at most 4"):
            admission.check(2)
        with pytest.raises(Overloaded), admission.admit(2):
            pytest.fail("the request must not be admitted")
        assert admission.num_waiting == 3
        with admission.admit(1):
            assert admission.num_waiting == 4
            with pytest.raises(Overloaded):
                admission.check()
    assert admission.num_waiting == 0
    with admission.admit(4):
        pass


@at_desk(max_waiting=4)
def test_an_error_gives_the_place_back(desk: Desk) -> None:
    with pytest.raises(ArithmeticError), desk.admission.admit(3):
        raise ArithmeticError
    assert desk.admission.num_waiting == 0


@at_desk()
def test_steady_batches_teach_the_time_per_image(desk: Desk) -> None:
    desk.work(8, 2.0, times=100)
    assert desk.admission.image_s == pytest.approx(0.25, rel=0.01)


@at_desk()
def test_requests_that_are_answered_together_teach_the_time_per_image_too(desk: Desk) -> None:
    for _ in range(50):
        with ExitStack() as stack:
            for _ in range(32):
                stack.callback(desk.wait, 0.001)
                stack.enter_context(desk.admission.admit(1))
            desk.wait(3.2)
    assert desk.admission.image_s == pytest.approx(0.1, rel=0.02)


@at_desk()
def test_overlapping_requests_count_no_time_twice(desk: Desk) -> None:
    admission = desk.admission
    previous = admission.admit(1)
    previous.__enter__()
    for _ in range(400):
        following = admission.admit(1)
        following.__enter__()
        desk.wait(0.5)
        previous.__exit__(None, None, None)
        previous = following
    assert admission.image_s == pytest.approx(0.5, rel=0.01)
    previous.__exit__(None, None, None)


@at_desk()
def test_idle_time_does_not_count(desk: Desk) -> None:
    for _ in range(400):
        desk.work(1, 0.1)
        desk.wait(3600)
    assert desk.admission.image_s == pytest.approx(0.1, rel=0.01)


@at_desk()
def test_the_time_per_image_follows_the_machine(desk: Desk) -> None:
    assert desk.admission.image_s == FIRST_IMAGE_S
    desk.work(1, 1.0, times=1000)
    assert desk.admission.image_s == pytest.approx(1.0, rel=0.01)
    desk.work(1, 20.0)  # one slow image is not the end of the world
    assert desk.admission.image_s < 1.5
    desk.work(1, 0.1, times=400)
    assert desk.admission.image_s == pytest.approx(0.1, rel=0.02)


@at_desk(max_wait_s=1.0)
def test_a_request_that_would_wait_too_long_is_refused(desk: Desk) -> None:
    admission = desk.admission
    desk.work(1, 0.25, times=1000)
    with admission.admit(3):
        admission.check()
        with admission.admit(3):
            assert admission.predicted_wait_s == pytest.approx(1.5, rel=0.01)
            with pytest.raises(Overloaded, match=r"wait for about 1\.5 s and may wait for 1 s"):
                admission.check()


@at_desk(max_wait_s=1.0)
def test_a_large_request_does_not_wait_for_its_own_images(desk: Desk) -> None:
    desk.work(1, 0.25, times=1000)
    with desk.admission.admit(16):
        pass


@at_desk(max_wait_s=10.0)
def test_a_request_that_would_miss_the_clients_own_deadline_is_refused(desk: Desk) -> None:
    desk.work(1, 0.25, times=1000)
    with desk.admission.admit(6):
        desk.admission.check(timeout_s=2)
        with pytest.raises(Overloaded, match="may wait for 1 s"):
            desk.admission.check(timeout_s=1)
        with desk.admission.admit(60), pytest.raises(Overloaded, match="may wait for 10 s"):
            desk.admission.check(timeout_s=1000)


@at_desk(max_wait_s=0.5)
async def test_the_ticket_has_the_limits_of_the_request(desk: Desk) -> None:
    async def wait(timeout_s: float | None) -> None:
        with desk.admission.admit(1, timeout_s) as ticket:
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            ticket.enter(answer)
            await answer

    for timeout_s, end_s, reason in ((None, 0.5, "expired"), (0.25, 0.75, "timeout")):
        with pytest.raises(Dropped) as error:
            await wait(timeout_s)
        assert error.value.reason == reason
        assert asyncio.get_running_loop().time() == end_s


@at_desk(max_wait_s=0.5)
async def test_dropped_requests_do_not_count_as_finished(desk: Desk) -> None:
    desk.work(1, 0.25, times=1000)
    before_s = desk.admission.image_s
    for _ in range(20):
        with desk.admission.admit(50) as ticket:
            ticket.disconnect()
    assert desk.admission.image_s == before_s
    assert desk.admission.num_waiting == 0


@pytest.mark.parametrize(("num_waiting", "jitter", "expected_s"), [(1, 0, 2), (50, 0.5, 150)])
def test_a_refused_client_comes_back_when_the_waiting_images_are_done(
    num_waiting: int, jitter: float, expected_s: int
) -> None:
    @at_desk(jitter=lambda: jitter)
    def test(desk: Desk) -> None:
        desk.work(1, 2.0, times=1000)
        with desk.admission.admit(num_waiting), pytest.raises(Overloaded) as error:
            desk.admission.check(1000)
        assert error.value.retry_s == pytest.approx(expected_s, abs=1)
        assert f"try again in {error.value.retry_s} s" in str(error.value)

    test()


@at_desk()
def test_a_refused_client_waits_for_at_least_a_second(desk: Desk) -> None:
    desk.work(1, 0.001, times=1000)
    assert desk.admission.retry_s() == 1
    with desk.admission.admit(10):
        assert desk.admission.retry_s() == 1


def test_refused_clients_do_not_come_back_together() -> None:
    async def test() -> None:
        admission = Admission(max_waiting=1000, max_wait_s=1000, clock=Clock())
        with admission.admit(400):  # the predicted wait is 20 s
            seconds = {admission.retry_s() for _ in range(500)}
        assert len(seconds) > 10
        assert min(seconds) >= 20
        assert max(seconds) <= 41

    run_without_waiting(test)


@at_desk(max_uploads=2)
def test_only_some_bodies_arrive_at_the_same_time(desk: Desk) -> None:
    admission = desk.admission
    with admission.uploading(), admission.uploading():
        assert admission.num_uploading == 2
        with pytest.raises(Overloaded, match="2 requests are arriving"), admission.uploading():
            pytest.fail("the request must not be accepted")
        assert (admission.num_uploading, admission.num_waiting) == (2, 0)
    with pytest.raises(ArithmeticError), admission.uploading():
        raise ArithmeticError
    assert admission.num_uploading == 0
