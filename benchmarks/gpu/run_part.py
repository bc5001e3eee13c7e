"""Run parts of the GPU benchmark: `python -m benchmarks.gpu.run_part NAME ... --workdir DIR`.

benchmarks.gpu starts this program. Torch is imported before FAISS, because FAISS then finds the
CUDA libraries that torch has loaded.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.gpu.job import Job, Skipped
from training.devices import best_device


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--without-failed", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names:
        torch.manual_seed(0)
        job = Job(
            file=arguments.workdir / f"{name}.json",
            device=best_device(),
            is_small=arguments.small,
            data=arguments.data,
            workdir=arguments.workdir,
            repeats_failed=not arguments.without_failed,
        )
        run_part(name, job)


def run_part(name: str, job: Job) -> None:
    """Run the function `run` of the part's module, or record which library is missing."""
    try:
        part = import_module(f"benchmarks.gpu.{name}")
    except ImportError as error:
        job.measure("all", _skip(f"a library cannot be imported: {error}"))
    else:
        job.figures.pop("all", None)  # of a run without the library
        part.run(job)


def _skip(reason: str) -> Callable[[], NoReturn]:
    """A measurement that is skipped."""

    def skip() -> NoReturn:
        raise Skipped(reason)

    return skip


if __name__ == "__main__":
    main()
