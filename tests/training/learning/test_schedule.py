"""The learning rate over a run: the paper's plateaus, and a warm-up with a cosine."""

import dataclasses

import pytest

from training.learning.recipe import Recipe
from training.learning.schedule import Schedule

PLATEAU = Recipe(schedule="plateau", learning_rate=0.01, patience_epochs=2)
COSINE = Recipe(schedule="cosine", learning_rate=0.4, epochs=10, warmup_epochs=2)


def test_the_rate_falls_to_a_tenth_three_times_and_training_ends_at_the_next_plateau() -> None:
    schedule = Schedule(PLATEAU)
    rates: list[float] = []
    while not schedule.has_ended and len(rates) < 100:
        rates.append(schedule.rate(len(rates)))
        schedule.end_epoch(error=0.5)
    # The first epoch sets the error that the others do not improve.
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 2 + [1e-4] * 2 + [1e-5] * 2)


def test_the_rate_stays_while_the_error_falls() -> None:
    schedule = Schedule(PLATEAU)
    # There are never two epochs without a lower error.
    for number, error in enumerate([0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.6]):
        assert schedule.rate(number) == 0.01
        schedule.end_epoch(error)
    assert schedule.rate(7) == 0.01


def test_only_a_new_lowest_error_counts_as_a_fall() -> None:
    schedule = Schedule(PLATEAU)
    for error in (0.5, 0.9, 0.8):  # falling, yet not below 0.5
        schedule.end_epoch(error)
    assert schedule.rate(3) == pytest.approx(1e-3)


def test_a_restored_schedule_continues_as_the_first_would() -> None:
    first = Schedule(PLATEAU)
    for error in (0.5, 0.5, 0.5, 0.6):
        first.end_epoch(error)
    second = Schedule(PLATEAU)
    second.restore(first.state())
    for _ in range(10):
        assert (first.rate(0), first.has_ended) == (second.rate(0), second.has_ended)
        first.end_epoch(0.5)
        second.end_epoch(0.5)
    assert second.has_ended


def test_the_cosine_warms_up_from_zero_and_falls_to_zero() -> None:
    schedule = Schedule(COSINE)
    assert [schedule.rate(epoch) for epoch in (0, 0.5, 1, 2, 6, 10)] == pytest.approx(
        [0, 0.1, 0.2, 0.4, 0.2, 0]
    )
    falling = [schedule.rate(2 + number / 10) for number in range(81)]
    assert falling == sorted(falling, reverse=True)


def test_without_a_warm_up_the_cosine_begins_at_the_highest_rate() -> None:
    assert Schedule(dataclasses.replace(COSINE, warmup_epochs=0)).rate(0) == 0.4


def test_a_warm_up_takes_no_more_than_half_the_run() -> None:
    schedule = Schedule(dataclasses.replace(COSINE, epochs=2, warmup_epochs=50))
    assert [schedule.rate(epoch) for epoch in (0, 0.5, 1, 1.5, 2)] == pytest.approx(
        [0, 0.2, 0.4, 0.2, 0]
    )


def test_a_cosine_ignores_the_error() -> None:
    schedule = Schedule(COSINE)
    for _ in range(100):
        schedule.end_epoch(0.9)
    assert not schedule.has_ended
    assert schedule.rate(2) == 0.4
