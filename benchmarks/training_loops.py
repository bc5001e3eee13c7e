"""Parts of a training run that the benchmarks time: the bare passes, and the whole loop."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import profile

from training.data.cache import cached_canvases
from training.data.datasets import class_names, open_dataset
from training.data.examples import Example
from training.devices import best_device
from training.interruption import StopRequest
from training.learning.distributed import Workers
from training.learning.epoch import train_epoch
from training.learning.plan import Plan, Split, architecture_of
from training.learning.recipe import Recipe
from training.learning.run import Run
from training.parallel import num_cores

NUM_PROFILED = 12
Measured = Callable[[int], None]
"""Runs a number of batches. It returns when the device has finished them."""


def bare_passes(recipe: Recipe) -> Measured:
    """The forward and backward passes only, on one batch that stays on the device."""
    run = begin_run(recipe, noise(recipe), Path("nowhere"))
    size = recipe.image_size
    shape = (recipe.batch_size, size, size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=run.device)
    targets = torch.zeros(recipe.batch_size, dtype=torch.int64, device=run.device)

    def passes(num_steps: int) -> None:
        run.network.train()
        for _ in range(num_steps):
            with run.autocast:
                logits, _ = run.forward(images)
            run.optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits.float(), targets).backward()
        wait_for_device()

    return passes


def training_loop(recipe: Recipe, train: Split, folder: Path) -> Measured:
    """The steps of an epoch in `lookalike train`. Reading the last loss waits for the device."""
    return epoch_steps(begin_run(recipe, train, folder))


def epoch_steps(run: Run) -> Measured:
    """The first steps of an epoch of `run`."""
    train, batch_size = run.plan.train, run.plan.recipe.batch_size

    def steps(num_steps: int) -> None:
        whole = run.plan
        targets = train.targets[: num_steps * batch_size]
        run.plan = replace(whole, train=Split(train.canvases, targets))
        run.position.step = run.position.num_seen = 0
        train_epoch(run, StopRequest())
        run.plan = whole

    return steps


def begin_run(
    recipe: Recipe, train: Split, folder: Path, device: torch.device | None = None
) -> Run:
    """A run on `device`. By default, it uses the GPU if there is one."""
    plan = Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, max(10, int(train.targets.max()) + 1)),
        train=train,
        held_out=train,
        directory=folder,
        fingerprint="",
    )
    return Run.begin(plan, Workers(device=device or best_device()))


def noise(recipe: Recipe) -> Split:
    """Eight random images. A run needs images to compute its channel means."""
    shape = (8, recipe.image_size, recipe.image_size, 3)
    canvases = torch.randint(0, 256, shape, dtype=torch.uint8).numpy()
    return Split(canvases, torch.zeros(8).long())


def read_split(data: str, size: int, num_images: int, folder: Path) -> Split:
    """Decode the training images into the cache."""
    examples = open_dataset(data).part("train")
    if num_images > len(examples):
        raise SystemExit(
            f"--steps needs {num_images:,} training images but {data} contains {len(examples):,}; "
            "pass fewer --steps"
        )
    return decoded_split(data, examples, size, folder / "canvases.u8")


def decoded_split(data: str, examples: tuple[Example, ...], size: int, file: Path) -> Split:
    """Decode examples into the cache `file`. The classes are those of these examples."""
    canvases = cached_canvases(data, examples, size, file, num_threads=num_cores())
    names = class_names(examples)
    targets = [names.index(str(example.label)) for example in canvases.examples]
    return Split(canvases.pixels, torch.tensor(targets))


def slowest_operations(loop: Measured, num_steps: int) -> list[str]:
    """The slowest operations of the loop, and their shares of the time."""
    with profile() as profiler:
        loop(num_steps)
    events = profiler.key_averages()
    operations = [(event.self_cpu_time_total, event.key) for event in events]
    if torch.cuda.is_available():
        operations = kernel_times(events)
    total_us = sum(time_us for time_us, _ in operations)
    slowest = sorted(operations, reverse=True)[:NUM_PROFILED]
    return [f"{time_us / total_us:.1%} {name}" for time_us, name in slowest]


def kernel_times(events: Iterable[Any]) -> list[tuple[float, str]]:
    """The time of each kernel on a GPU, in microseconds, and its name.

    The events of operations and of annotations contain the time of their kernels once more.
    """
    return [
        (event.self_device_time_total, event.key)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
