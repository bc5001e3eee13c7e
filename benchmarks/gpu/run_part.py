"""Run one part of the GPU benchmark: `python -m benchmarks.gpu.run_part NAME FILE ...`.

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
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    job = Job(
        file=arguments.file,
        device=best_device(),
        is_small=arguments.small,
        data=arguments.data,
        workdir=arguments.workdir,
    )
    try:
        part = import_module(f"benchmarks.gpu.{arguments.name}")
    except ModuleNotFoundError as error:
        job.measure("all", _skip(f"not installed: {error.name}"))
    else:
        part.run(job)


def _skip(reason: str) -> Callable[[], NoReturn]:
    """A measurement that is skipped."""

    def skip() -> NoReturn:
        raise Skipped(reason)

    return skip


if __name__ == "__main__":
    main()
