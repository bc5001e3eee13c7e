from pathlib import Path

import pytest

from benchmarks.index_crashes import measure


@pytest.mark.slow  # tens of seconds: each job is timed first, and every killed one is run again
def test_a_job_killed_at_any_instant_leaves_a_whole_commit_and_ends_the_same_when_run_again(
    tmp_path: Path,
) -> None:
    figures = measure(tmp_path, num_kills=15, num_images=24, seed=1)
    assert figures["failures"] == []
    assert sum(job["between_commits"] for job in figures["by_job"].values()) > 0
