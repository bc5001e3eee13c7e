"""Measure the images per second that training reads, and name what bounds it.

`passes`: the forward and backward passes on one batch. `steps`: whole steps on canvases that are on
the device: augmentation, mixing, passes, update. `loop`: the loop of `lookalike train` over decoded
canvases, which are copied from the computer's memory or stay on the device.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.images import read_images
from benchmarks.gpu.job import Job, Skipped, need_gpu, rate
from benchmarks.training_loops import begin_run, epoch_steps, kernel_times, noise
from training.learning.augment import Draws
from training.learning.plan import can_compile_for_gpu
from training.learning.recipe import Recipe, modern
from training.learning.run import Run
from training.learning.step import Batch, train_step

GFLOP_PER_IMAGE = 3 * 2 * 0.72
"""Forward and backward passes at 224 pixels: three times 0.72 billion multiplications and
additions (Krizhevsky et al. 2012, section 3, counted without biases)."""
NUM_SLOWEST = 12
BUSY_SHARE = 0.85
"""If the device is busy for at least this share of the time, it bounds the speed."""


def run(job: Job) -> None:
    variants = {"eager": "off", "compiled": "on", "graphs": "graphs"}
    for batch_size in job.size((8,), (128, 512)):
        for place in ("device", "host"):
            job.measure(
                f"loop_from_{place}_{batch_size}",
                lambda: _loop(job, batch_size, on_device=place == "device"),  # noqa: B023
            )
        job.measure(f"profile_{batch_size}", lambda: _profile(job, batch_size))  # noqa: B023
        for variant, mode in variants.items():
            name = f"{variant}_{batch_size}"
            job.measure(f"passes_{name}", lambda: _passes(job, batch_size, mode))  # noqa: B023
            job.measure(f"steps_{name}", lambda: _steps(job, batch_size, mode))  # noqa: B023


def _passes(job: Job, batch_size: int, mode: str) -> Mapping[str, Any]:
    training = _begin(job, batch_size, mode)
    canvases, targets = _batch(training)
    size = training.plan.recipe.image_size
    squares = canvases[:, :size, :size].contiguous()

    def step() -> None:
        training.optimizer.zero_grad(set_to_none=True)
        with training.autocast:
            logits, _ = training.forward(squares)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()

    return _speed(job, step, batch_size)


def _steps(job: Job, batch_size: int, mode: str) -> Mapping[str, Any]:
    training = _begin(job, batch_size, mode)
    canvases, targets = _batch(training)
    recipe, number = training.plan.recipe, iter(range(10**9))

    def step() -> None:
        draws = Draws.of(recipe, batch_size, epoch=0, step=next(number))
        batch = Batch(canvases, targets, draws, 0, 1 / batch_size, batch_size)
        train_step(training, batch, rate=1e-4)

    return _speed(job, step, batch_size)


def _loop(job: Job, batch_size: int, *, on_device: bool) -> Mapping[str, Any]:
    """Images per second of an epoch from decoded canvases, with the reads of the loss."""
    if on_device:
        need_gpu(job)
    images = read_images(job, _recipe(job, batch_size).image_size)
    torch.compiler.reset()  # versions that were compiled for other sizes
    training = begin_run(_recipe(job, batch_size), images.train, job.workdir, job.device)
    if not on_device:
        training.train_canvases = images.train.canvases
    elif not isinstance(training.train_canvases, Tensor):
        raise Skipped("the canvases do not fit into the GPU's memory")
    num_steps = min(len(images.train.targets) // batch_size, job.size(2, 10_000))
    steps = epoch_steps(training)
    speed = rate(job, lambda: steps(num_steps), num_steps * batch_size, seconds=job.size(0.1, 8.0))
    return {"images_per_s": speed, "has_made_up_images": images.is_made_up}


def _profile(job: Job, batch_size: int) -> Mapping[str, Any]:
    """Find what bounds the loop: how busy the device is, and which kernels are the slowest.

    The time of the kernels is divided by the time of the same steps without the profiler, because
    the profiler slows the host. On a CPU, only the slowest operations are measured.
    """
    torch.compiler.reset()
    images = read_images(job, _recipe(job, batch_size).image_size)
    training = begin_run(_recipe(job, batch_size), images.train, job.workdir, job.device)
    num_steps = min(len(images.train.targets) // batch_size, job.size(2, 30))
    steps = epoch_steps(training)
    steps(num_steps)
    job.wait()
    started_s = perf_counter()
    steps(num_steps)
    job.wait()
    steps_us = 1e6 * (perf_counter() - started_s)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * job.is_gpu
    with profile(activities=activities) as profiler:
        steps(num_steps)
        job.wait()
    events = profiler.key_averages()
    on_cpu = _slowest((event.self_cpu_time_total, event.key) for event in events)
    if not job.is_gpu:
        return {"slowest_operations": on_cpu, "bound_by": "the CPU"}
    kernels = kernel_times(events)
    if not kernels:
        raise Skipped("the profiler saw no kernels")
    busy = sum(time_us for time_us, _ in kernels) / steps_us
    return {
        "device_is_busy": round(busy, 3),
        "bound_by": "the GPU" if busy >= BUSY_SHARE else "the host",
        "slowest_kernels": _slowest(kernels),
        "slowest_operations_on_the_cpu": on_cpu,
    }


def _slowest(times: Any) -> list[str]:
    """The slowest operations of (microseconds, name), with their shares of the total."""
    by_time = sorted(times, reverse=True)
    total_us = sum(time_us for time_us, _ in by_time) or 1
    return [f"{time_us / total_us:.1%} {name[:80]}" for time_us, name in by_time[:NUM_SLOWEST]]


def _speed(job: Job, step: Callable[[], None], batch_size: int) -> Mapping[str, Any]:
    counters.clear()
    images_per_s = rate(job, step, batch_size, seconds=job.size(0.1, 4.0))
    figures: dict[str, Any] = {"images_per_s": images_per_s}
    if not job.is_small:
        figures["tflop_per_s"] = round(images_per_s * GFLOP_PER_IMAGE / 1000, 1)
    if num_skips := counters["inductor"]["cudagraph_skips"]:
        figures["error"] = f"{num_skips} parts of the network were not made into CUDA graphs"
    return figures


def _begin(job: Job, batch_size: int, mode: str) -> Run:
    """A run whose network is executed as it is, compiled, or compiled into CUDA graphs."""
    if mode != "off":
        need_gpu(job)
        if not can_compile_for_gpu():
            raise Skipped("needs Triton, a C compiler and Python's header files")
        torch.compiler.reset()  # versions that were compiled for other sizes
    recipe = dataclasses.replace(
        _recipe(job, batch_size), compilation="off" if mode == "off" else "on"
    )
    training = begin_run(recipe, noise(recipe), Path("nowhere"), job.device)
    if mode == "graphs":
        training.forward = torch.compile(training.network, mode="reduce-overhead", dynamic=False)
    training.network.train()
    return training


def _recipe(job: Job, batch_size: int) -> Recipe:
    return dataclasses.replace(modern(), image_size=job.size(67, 224), batch_size=batch_size)


def _batch(training: Run) -> tuple[Tensor, Tensor]:
    """Random canvases (B, R, R, 3) and targets (B,) on the device."""
    recipe, side = training.plan.recipe, training.plan.train.canvases.shape[1]
    shape = (recipe.batch_size, side, side, 3)
    canvases = torch.randint(0, 256, shape, dtype=torch.uint8, device=training.device)
    return canvases, torch.arange(recipe.batch_size, device=training.device) % 10
