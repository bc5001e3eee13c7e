"""How fast is training: the loop, the bare pass, and torchvision's own way, in turns in one process?

    python -m benchmarks.training_speed DATA [--image-size 128] [--batch-size 128] [--steps 30] [--rounds 3] [--name NAME]

DATA is a folder of class folders, with `train` inside or not. Each is timed for `--steps` batches, in `--rounds` turns:

- `bare`: forward and backward of the `modern` recipe's network on one batch that lies on the device, with neither images nor update.
- `loop`: `Run.train_epoch`, what `lookalike train` runs: canvases from the cache, crops, flips, PCA colour, mixup and cutmix, passes,
  clipping, update.
- `loop_as_torchvision`: the same loop with torchvision's layout and training: float32, no norm, no smoothing, no PCA colour, no mixing,
  crops of its least area.
- `torchvision`: ImageFolder, RandomResizedCrop, flip and normalisation in one loader worker a core, torchvision.models.alexnet, SGD.

Decoding into the cache is timed too, and reckoned in over the recipe's epochs. On a GPU, `bare` is what synthetic data would give;
`--profile` adds where the loop's time goes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import profile
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from benchmarks.record import record
from training.data.cache import cached_canvases
from training.data.datasets import class_names, open_dataset
from training.devices import best_device
from training.interruption import StopRequest
from training.learning.distributed import Workers
from training.learning.recipe import Recipe, modern
from training.learning.trainer import Plan, Run, Split, architecture_of, keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="training_speed")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    size, batch_size, num_images = (
        arguments.image_size,
        arguments.batch_size,
        arguments.batch_size * arguments.steps,
    )
    ours = replace(modern(), image_size=size, batch_size=batch_size)
    theirs = replace(
        ours,
        layout="torchvision",
        normalization="none",
        precision="float32",
        label_smoothing=0.0,
        max_gradient_norm=0.0,
        colour_noise=0.0,
        mixup=0.0,
        cutmix=0.0,
        min_crop_area=0.08,
        nesterov=False,
        learning_rate=1e-6,  # for speed alone: without a norm it would diverge
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train = _split(arguments.data, size, num_images, Path(folder))
        decode_s = (time.perf_counter() - started) / len(train.targets)
        measured = {
            "bare": _bare(ours),
            "loop": _loop(ours, train, Path(folder)),
            "bare_as_torchvision": _bare(theirs),
            "loop_as_torchvision": _loop(theirs, train, Path(folder)),
            "torchvision": _torchvision(Path(arguments.data), size, batch_size),
        }
        keep_freed_memory()
        rates = _in_turns(measured, arguments.steps, arguments.rounds, batch_size)
        operations = _profile(measured["loop"], arguments.steps) if arguments.profile else []
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "image_size": size,
        "batch_size": batch_size,
        "rounds": arguments.rounds,
    }
    figures["images_per_s"] = {name: round(median(values), 1) for name, values in rates.items()}
    figures["images_per_s_lowest_and_highest"] = {
        name: [round(min(values), 1), round(max(values), 1)] for name, values in rates.items()
    }
    figures["decoding_images_per_s"] = round(1 / decode_s, 1)
    figures["epochs_reckoned_with"] = ours.epochs
    for name, ratio in {
        "loop_share_of_bare": ("loop", "bare"),
        "loop_as_torchvision_share_of_bare": ("loop_as_torchvision", "bare_as_torchvision"),
        "loop_over_torchvision": ("loop", "torchvision"),
        "loop_as_torchvision_over_torchvision": ("loop_as_torchvision", "torchvision"),
    }.items():
        figures[name] = round(
            median(
                one / other for one, other in zip(rates[ratio[0]], rates[ratio[1]], strict=True)
            ),
            3,
        )
    loop_s = 1 / figures["images_per_s"]["loop"] + decode_s / ours.epochs
    figures["loop_with_decoding_over_torchvision"] = round(
        1 / loop_s / figures["images_per_s"]["torchvision"], 3
    )
    record(arguments.name, figures | ({"profile": operations} if operations else {}))


PAUSE_S = 3.0
"""Between two turns: torchvision's workers go on until they have filled their queue."""
Measured = Callable[[int], None]
"""Runs a number of batches, and returns once the device has done them."""


def _in_turns(
    measured: dict[str, Measured], steps: int, rounds: int, batch_size: int
) -> dict[str, list[float]]:
    """Images/s of each round; in turns, so that a busy neighbour slows all alike."""
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for run in measured.values():
        run(3)  # warm: kernels chosen, pages faulted in, workers started
    for _ in range(rounds):
        for name, run in measured.items():
            started = time.perf_counter()
            run(steps)
            _wait()
            rates[name].append(steps * batch_size / (time.perf_counter() - started))
            time.sleep(PAUSE_S)
    return rates


def _bare(recipe: Recipe) -> Measured:
    """Forward and backward on one resident batch, with nothing else."""
    run = _run_of(recipe, _noise(recipe), Path("nowhere"))
    images = torch.randint(
        0,
        256,
        (recipe.batch_size, recipe.image_size, recipe.image_size, 3),
        dtype=torch.uint8,
        device=run.device,
    )
    targets = torch.zeros(recipe.batch_size, dtype=torch.int64, device=run.device)

    def passes(num_steps: int) -> None:
        run.trained.train()
        for _ in range(num_steps):
            with run.autocast:
                logits, _ = run.forward(images)
            run.optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits.float(), targets).backward()
        _wait()

    return passes


def _loop(recipe: Recipe, train: Split, folder: Path) -> Measured:
    """Steps of an epoch as `lookalike train` takes them; the last of them is waited for, since its loss is read."""
    run = _run_of(recipe, train, folder)

    def steps(num_steps: int) -> None:
        whole = run.plan
        run.plan = replace(
            whole, train=Split(train.canvases, train.targets[: num_steps * recipe.batch_size])
        )
        run.position.step = run.position.num_seen = 0
        run.train_epoch(StopRequest(), lambda: None)
        run.plan = whole

    return steps


def _run_of(recipe: Recipe, train: Split, folder: Path) -> Run:
    plan = Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, num_classes=10),
        train=train,
        held_out=train,
        directory=folder,
        fingerprint="",
    )
    run = Run(plan, Workers(device=best_device()))
    run.begin()
    return run


def _noise(recipe: Recipe) -> Split:
    return Split(
        torch.randint(
            0, 256, (8, recipe.image_size, recipe.image_size, 3), dtype=torch.uint8
        ).numpy(),
        torch.zeros(8).long(),
    )


def _split(data: str, size: int, num_images: int, folder: Path) -> Split:
    """The training images through the cache."""
    examples = open_dataset(data).part("train")
    if num_images > len(examples):
        raise SystemExit(
            f"{data} has {len(examples):,} training images, too few for {num_images:,}; pass fewer --steps"
        )
    canvases = cached_canvases(
        data, examples, size, folder / "canvases.u8", threads=os.cpu_count() or 1
    )
    names = class_names(examples)
    return Split(
        canvases.pixels,
        torch.tensor([names.index(str(example.label)) for example in canvases.examples]),
    )


def _torchvision(folder: Path, size: int, batch_size: int) -> Measured:
    """Training as torchvision's own references do it, at this size and batch."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    num_workers = os.cpu_count() or 1
    images = datasets.ImageFolder(str(root), transform)
    loader = DataLoader(
        images,
        batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=True,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
    )
    device = best_device()
    network = models.alexnet(num_classes=len(images.classes)).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batches = chain.from_iterable(loader for _ in count())

    def steps(num_steps: int) -> None:
        for inputs, targets in islice(batches, num_steps):
            loss = nn.functional.cross_entropy(
                network(inputs.to(device, non_blocking=True)), targets.to(device, non_blocking=True)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        _wait()

    return steps


def _profile(loop: Measured, steps: int) -> list[str]:
    """The operations that take the most time of the loop, with their shares."""
    with profile() as profiler:
        loop(steps)
    on_gpu = torch.cuda.is_available()
    operations = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.key)
        for event in profiler.key_averages()
    ]
    total = sum(time_us for time_us, _ in operations)
    return [
        f"{time_us / total:.1%} {name}" for time_us, name in sorted(operations, reverse=True)[:12]
    ]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
