"""The work of one part of the GPU benchmark: its device, its sizes, and the figures it keeps."""

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch

from training.errors import UserError
from training.files import write_atomically

T = TypeVar("T")

CRASHED = "the process ended during this measurement"
GPU_IS_LOST = 3
"""Exit status of a part that cannot use the GPU any more."""


class Skipped(Exception):
    """A measurement that this machine cannot make. The message says why."""


@dataclass
class Job:
    """The means of a part. Its figures are written to `file` after every measurement."""

    file: Path
    device: torch.device
    is_small: bool
    """True: every measurement takes seconds, and its figures mean nothing."""
    data: Path | None
    """A folder of images with `train` and `val`, or None."""
    workdir: Path
    repeats_failed: bool = True
    """Whether a measurement that failed earlier is made again."""
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.exists():
            self.figures = json.loads(self.file.read_text("utf-8"))

    def measure(self, name: str, function: Callable[[], Mapping[str, Any]]) -> None:
        """Measure once, and write the figures. A measurement of an earlier run is not repeated.

        An error is written in place of the figures, so that the other measurements still run. A
        measurement that failed or was skipped is tried again by the next run.
        """
        earlier = self.figures.get(name)
        if earlier is not None and (is_finished(earlier) or not self.repeats_failed):
            return
        self._keep(name, {"error": CRASHED})
        started_s = perf_counter()
        try:
            figures: dict[str, Any] = dict(function())
        except Skipped as reason:
            figures = {"skipped": str(reason)}
        except Exception as error:
            traceback.print_exc()
            figures = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        figures["seconds"] = round(perf_counter() - started_s, 2)
        self._keep(name, figures)
        print(f"  {name}: {figures}", flush=True)
        if "error" in figures:
            self._end_if_the_gpu_is_lost()

    def _keep(self, name: str, figures: dict[str, Any]) -> None:
        self.figures[name] = figures
        write_atomically(self.file, json.dumps(self.figures).encode())

    def _end_if_the_gpu_is_lost(self) -> None:
        """End the process after an error from which CUDA does not recover.

        All later measurements of this process would fail with the same error.
        """
        try:
            self.wait()
        except Exception:
            sys.exit(GPU_IS_LOST)

    def size(self, small: T, full: T) -> T:
        """`small` in a small run, `full` otherwise."""
        return small if self.is_small else full

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.is_gpu:
            torch.cuda.synchronize()


def is_finished(figures: Mapping[str, Any]) -> bool:
    """Whether a measurement has figures, not an error or a reason why it was skipped."""
    return not {"error", "skipped"} & set(figures)


def need(*packages: str) -> None:
    """Raise Skipped if one of these packages cannot be imported."""
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise Skipped(f"{name} cannot be imported: {error}") from error


def need_gpu(job: Job) -> None:
    """Raise Skipped if the job runs on a CPU."""
    if not job.is_gpu:
        raise Skipped("needs a GPU")


def need_faiss_gpu(job: Job) -> None:
    """Raise Skipped if FAISS or torch cannot use a GPU."""
    need_gpu(job)
    need("faiss")
    from indexer.search.search_device import resolve_search_device

    try:
        resolve_search_device("gpu")
    except UserError as error:
        raise Skipped(str(error)) from error


def rate(job: Job, function: Callable[[], object], count: int, *, seconds: float) -> float:
    """Units per second of a function that processes `count` units per call.

    The function is called for about `seconds`, after two calls that are not timed.
    """
    for _ in range(2):
        function()
    job.wait()
    started_s, num_calls = perf_counter(), 0
    while perf_counter() - started_s < seconds:
        function()
        num_calls += 1
    job.wait()
    return round(count * num_calls / (perf_counter() - started_s), 1)
