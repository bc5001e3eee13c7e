"""The figures of a service, without a service."""

import pytest

from service.admission import Admission
from service.metrics import Metrics
from service.stage import Batch


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_batch_is_counted_by_its_stage() -> None:
    metrics = Metrics()
    metrics.count_batch(Batch("network", [0.1, 0.3], 0.5))
    metrics.count_batch(Batch("network", [0.0], 0.25))
    assert value(metrics, "lookalike_batch_images_sum", stage="network") == 3
    assert value(metrics, "lookalike_batch_seconds_sum", stage="network") == 0.75
    assert value(metrics, "lookalike_wait_seconds_sum", stage="network") == pytest.approx(0.4)
    assert value(metrics, "lookalike_wait_seconds_count", stage="network") == 3


def test_every_reason_to_drop_an_image_has_a_value_from_the_start() -> None:
    metrics = Metrics()
    metrics.count_dropped("expired", 3)
    for reason, count in (("expired", 3), ("timeout", 0), ("disconnected", 0)):
        assert value(metrics, "lookalike_dropped_images_total", reason=reason) == count


def test_what_waits_is_read_when_the_figures_are_read() -> None:
    metrics = Metrics()
    admission = Admission(max_waiting=10, max_wait_s=1.0)
    metrics.watch(admission)
    assert value(metrics, "lookalike_waiting_images") == 0
    admission.num_waiting = 4
    assert value(metrics, "lookalike_waiting_images") == 4
    assert value(metrics, "lookalike_waiting_seconds") == pytest.approx(4 * admission.image_s)
    with admission.uploading():
        assert value(metrics, "lookalike_uploading_requests") == 1


def test_two_applications_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.count_swap(is_ok=False)
    assert value(first, "lookalike_index_swaps_total", result="failed") == 1
    assert value(second, "lookalike_index_swaps_total", result="failed") == 0
