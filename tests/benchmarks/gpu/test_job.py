"""A job's measurements: kept one by one, repeated only if they failed or were skipped."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.job import CRASHED, Job, Skipped, need, need_gpu

CPU = torch.device("cpu")


def make_job(folder: Path) -> Job:
    return Job(folder / "part.json", CPU, is_small=True, data=None, workdir=folder)


def failing(error: Exception) -> Callable[[], Mapping[str, Any]]:
    def fail() -> Mapping[str, Any]:
        raise error

    return fail


def test_figures_are_written_after_each_measurement(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.measure("first", lambda: {"value": 1})
    assert json.loads(job.file.read_text())["first"]["value"] == 1
    job.measure("second", lambda: {"value": 2})
    assert [figures["value"] for figures in job.figures.values()] == [1, 2]


def test_a_later_run_measures_only_what_is_missing(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.measure("done", lambda: {"value": 1})
    job.measure("failed", failing(ValueError("broken")))
    job.measure("skipped", failing(Skipped("needs more")))
    assert job.figures["failed"]["error"] == "ValueError: broken"
    assert job.figures["skipped"]["skipped"] == "needs more"
    later = make_job(tmp_path)
    for name in ("done", "failed", "skipped"):
        later.measure(name, lambda: {"value": 2})
    assert [figures["value"] for figures in later.figures.values()] == [1, 2, 2]


def test_an_error_does_not_stop_the_other_measurements(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.measure("failed", failing(RuntimeError("CUDA error")))
    job.measure("next", lambda: {"value": 1})
    assert job.figures["next"]["value"] == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    need("json", "torch")
    with pytest.raises(Skipped, match="no_such_package cannot be imported"):
        need("json", "no_such_package")
    with pytest.raises(Skipped, match="needs a GPU"):
        need_gpu(make_job(tmp_path))


def test_a_second_attempt_after_a_crash_makes_only_what_was_not_begun(tmp_path: Path) -> None:
    def crash() -> Mapping[str, Any]:
        raise SystemExit(1)

    job = make_job(tmp_path)
    with pytest.raises(SystemExit):
        job.measure("crashes", crash)
    assert json.loads(job.file.read_text())["crashes"]["error"] == CRASHED
    second = Job(job.file, CPU, True, None, tmp_path, repeats_failed=False)
    second.measure("crashes", crash)
    second.measure("next", lambda: {"value": 1})
    assert second.figures["next"]["value"] == 1
    assert second.figures["crashes"]["error"] == CRASHED
