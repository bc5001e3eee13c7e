from pathlib import Path

import pytest

from benchmarks.service_start import Start, add_codes, make_index, measure, summary
from indexer.opening import open_index


def test_the_summary_has_the_spread_of_the_times_and_the_worst_of_the_rest() -> None:
    starts = [Start(2.0, False, 300), Start(1.0, True, 200), Start(1.5, False, 250)]
    assert summary(starts) == {
        "ready_s": {"min": 1.0, "median": 1.5, "max": 2.0},
        "torch_is_loaded": True,
        "resident_mb": 300,
    }


@pytest.mark.slow  # starts the service in a process of its own
def test_the_service_starts_on_an_index_with_codes_without_torch(
    tmp_path: Path, tiny_model: Path
) -> None:
    index = tmp_path / "index"
    make_index(index, tiny_model, 50)
    add_codes(index)
    opened = open_index(index)
    assert opened.index.manifest.num_items == 50
    assert opened.searcher.code_search.item_codes.shape == (50, 32)
    figures = measure(index, 1)
    assert figures["ready_s"]["max"] > 0
    assert not figures["torch_is_loaded"]
