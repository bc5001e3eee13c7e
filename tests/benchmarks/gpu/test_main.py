"""`python -m benchmarks.gpu --small`: every part runs on a CPU, so that it works on a GPU too."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from benchmarks.gpu.__main__ import (
    NAMES,
    PARTS,
    TERMINATED,
    has_errors,
    main,
    read_parts,
    run_parts,
    summary,
)
from benchmarks.record import ROOT


class Done(NamedTuple):
    """A finished run: its exit status, what it printed, and its record."""

    status: int
    printed: str
    record: dict[str, Any]


def run_small(folder: Path, *arguments: str) -> Done:
    options = ["--small", "--workdir", str(folder / "work"), "--out", str(folder), *arguments]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    file = folder / "gpu_small.json"
    record = json.loads(file.read_text()) if file.exists() else {}
    return Done(done.returncode, done.stdout, record)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder, and the run that was made in it."""
    folder = tmp_path_factory.mktemp("gpu")
    return folder, run_small(folder)


def test_every_part_runs_or_says_why_not(small: tuple[Path, Done]) -> None:
    _, done = small
    assert done.status == 0, done.printed
    parts = done.record["figures"]["parts"]
    assert list(parts) == list(NAMES)
    for name, part in parts.items():
        assert "error" not in part, (name, done.printed)
        finished = [values for values in part["figures"].values() if "skipped" not in values]
        assert finished, (name, part)


def test_a_second_run_measures_nothing_again(small: tuple[Path, Done]) -> None:
    folder, first = small
    second = run_small(folder, "--parts", "embedding", "codes")
    assert second.status == 0, second.printed
    before, after = (done.record["figures"]["parts"] for done in (first, second))
    for name in NAMES:
        assert after[name]["figures"] == before[name]["figures"]


def test_a_record_names_its_commit_device_and_environment(small: tuple[Path, Done]) -> None:
    record = small[1].record
    assert {"commit", "is_dirty", "machine", "versions", "command"} <= set(record)
    assert {"device", "environment", "parts"} <= set(record["figures"])


def test_without_a_gpu_only_a_small_run_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu", "--out", str(tmp_path)])
    monkeypatch.setattr("benchmarks.gpu.__main__.best_device", lambda: torch.device("cpu"))
    with pytest.raises(SystemExit, match="torch can use no GPU here; pass --small"):
        main()
    assert not any(tmp_path.iterdir())


def test_a_part_that_takes_too_long_is_ended_and_keeps_its_figures(tmp_path: Path) -> None:
    (tmp_path / "embedding.json").write_text('{"same_features": {"largest_difference": 0.0}}')
    arguments = argparse.Namespace(data=None, small=True)
    part = next(part for part in PARTS if part.name == "embedding")
    error = run_parts([part], tmp_path, arguments, limit_s=0.05)
    assert error == TERMINATED
    assert read_parts(tmp_path, {"embedding": error})["embedding"] == {
        "figures": {"same_features": {"largest_difference": 0.0}},
        "error": TERMINATED,
    }


def test_the_parts_fit_into_half_an_hour_and_have_the_order_of_their_worth() -> None:
    assert sum(part.minutes for part in PARTS) < 30
    assert NAMES[0] == "tests"


def test_a_summary_has_a_line_for_each_figure_reason_and_error() -> None:
    figures = {
        "parts": {
            "a": {"figures": {"speed": {"images_per_s": 5}, "other": {"skipped": "needs a GPU"}}},
            "b": {"skipped": "not asked for"},
        }
    }
    assert summary(figures).splitlines() == [
        'a, speed: {"images_per_s": 5}',
        'a, other: {"skipped": "needs a GPU"}',
        "b: skipped: not asked for",
    ]
    assert not has_errors(figures)
    figures["parts"]["a"]["figures"]["speed"] = {"error": "CUDA error"}  # type: ignore[index]
    assert has_errors(figures)
