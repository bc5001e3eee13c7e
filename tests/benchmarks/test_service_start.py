from benchmarks.service_start import Start, summary


def test_the_summary_has_the_spread_of_the_times_and_the_worst_of_the_rest() -> None:
    starts = [Start(2.0, False, 300), Start(1.0, True, 200), Start(1.5, False, 250)]
    assert summary(starts) == {
        "ready_s": {"min": 1.0, "median": 1.5, "max": 2.0},
        "torch_is_loaded": True,
        "resident_mb": 300,
    }
