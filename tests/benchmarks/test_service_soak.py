from pathlib import Path

import pytest

from benchmarks.service_load.paced import Sent
from benchmarks.service_load.pictures import picture
from benchmarks.service_soak import measure, prepare, summary


@pytest.mark.slow  # runs the service for a quarter of a minute
def test_a_short_run_compacts_and_swaps_without_a_wrong_answer(
    tmp_path: Path, tiny_model: Path
) -> None:
    setup = prepare(tmp_path, tiny_model, picture(0), 60)
    figures = measure(setup, minutes=2, maximum_s=2, minute_s=6)
    assert figures["failures"] == []
    # A busy machine may refuse requests. None of them may have a wrong answer.
    assert {*figures["failed_by_reason"]} <= {"status 429"}
    assert (figures["num_compactions"], figures["num_swaps"]) == (2, 2)
    assert figures["num_additions"] > 0
    assert 0 < figures["paced_images_per_s"] < figures["maximum_images_per_s"]
    assert len(figures["by_minute"]) == 2
    assert figures["by_minute"][0]["requests"] > 0


def test_the_summary_counts_failures_and_splits_the_times_by_minute() -> None:
    sent = [Sent(0.5, 0.1, ""), Sent(0.7, 0.3, "status 429"), Sent(1.5, 0.2, ""), Sent(9, 1, "")]
    memory = [
        {"resident_mb": 200, "anonymous_mb": 100},
        {"resident_mb": 210, "anonymous_mb": 101},
    ]
    figures = summary(sent, memory, [0, 1, 2])
    assert (figures["requests"], figures["failed_requests"]) == (4, 1)
    assert figures["failed_by_reason"] == {"status 429": 1}
    assert (figures["resident_growth"], figures["anonymous_growth"]) == (0.05, 0.01)
    first, second = figures["by_minute"]
    assert (first["requests"], first["failed"], first["p50_ms"]) == (2, 1, 200)
    assert (second["requests"], second["p50_ms"], second["anonymous_mb"]) == (1, 200, 101)
