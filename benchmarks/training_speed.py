"""How fast is training compared with the bare network and with torchvision's own training?

    python -m benchmarks.training_speed DATA [--image-size 128] [--batch-size 128] [--steps 30]
        [--rounds 3] [--name NAME] [--profile]

DATA is a folder of class folders, or a folder with class folders in `train`. One process times each
of the following for `--steps` batches. They take turns in each of `--rounds` rounds.

- `bare`: forward and backward passes of the `modern` recipe's network on one batch that stays on
  the device. No images are read and no weights are updated.
- `loop`: the function `train_epoch` of `lookalike train`: canvases from the cache, crops, flips,
  PCA colour noise, mixup and cutmix, both passes, gradient clipping, update.
- `loop_as_torchvision`: the same loop with torchvision's layout and settings: float32, no batch
  norm, no label smoothing, no colour noise, no mixing, and crops of any area from 8 %.
- `bare_as_torchvision`: only the forward and backward passes of `loop_as_torchvision`.
- `torchvision`: ImageFolder, RandomResizedCrop, flips and normalisation in one loader process per
  core, torchvision.models.alexnet, SGD.

Decoding into the cache is timed too. In `loop_with_decoding_over_torchvision`, this time is spread
over the epochs of the recipe. On a GPU, `bare` is the speed on synthetic data. `--profile` adds the
slowest operations of the loop.
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
from training.devices import best_device, device_name
from training.interruption import StopRequest
from training.learning.distributed import Workers
from training.learning.epoch import train_epoch
from training.learning.plan import Plan, Split, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.run import Run
from training.learning.trainer import keep_freed_memory

PAUSE_S = 3.0
"""Pause between two turns, because torchvision's loaders work until their queue is full."""
NUM_WARM_UP_STEPS = 3
NUM_PROFILED = 12
RATIOS = {
    "loop_share_of_bare": ("loop", "bare"),
    "loop_as_torchvision_share_of_bare": ("loop_as_torchvision", "bare_as_torchvision"),
    "loop_over_torchvision": ("loop", "torchvision"),
    "loop_as_torchvision_over_torchvision": ("loop_as_torchvision", "torchvision"),
}
Measured = Callable[[int], None]
"""Runs a number of batches. It returns when the device has finished them."""


def main() -> None:
    arguments = _arguments()
    size, batch_size = arguments.image_size, arguments.batch_size
    recipe = replace(modern(), image_size=size, batch_size=batch_size)
    as_torchvision = replace(
        recipe,
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
        learning_rate=1e-6,  # only speed matters; more diverges without batch norm
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        train = _read_split(arguments.data, size, batch_size * arguments.steps, folder)
        decode_s = (time.perf_counter() - started) / len(train.targets)
        measured = {
            "bare": _bare(recipe),
            "loop": _loop(recipe, train, folder),
            "bare_as_torchvision": _bare(as_torchvision),
            "loop_as_torchvision": _loop(as_torchvision, train, folder),
            "torchvision": _torchvision(Path(arguments.data), size, batch_size),
        }
        keep_freed_memory()
        rates = _measure_in_turns(measured, arguments.steps, arguments.rounds, batch_size)
        operations = _profile(measured["loop"], arguments.steps) if arguments.profile else []
    figures = {
        "device": device_name(best_device()),
        "image_size": size,
        "batch_size": batch_size,
        "rounds": arguments.rounds,
        **summary(rates, decode_s, recipe.epochs),
        **({"profile": operations} if operations else {}),
    }
    record(arguments.name, figures)


def _arguments() -> argparse.Namespace:
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
    return parser.parse_args()


def summary(rates: dict[str, list[float]], decode_s: float, num_epochs: int) -> dict[str, Any]:
    """The speeds in images per second, and their ratios. `rates` holds the speed of each round.

    A ratio is the median over the rounds. `decode_s` is the time to decode one image.
    """
    medians = {name: round(median(values), 1) for name, values in rates.items()}
    ratios = {
        name: round(median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 3)
        for name, (one, other) in RATIOS.items()
    }
    seconds_per_image = 1 / medians["loop"] + decode_s / num_epochs
    with_decoding = round(1 / seconds_per_image / medians["torchvision"], 3)
    return {
        "images_per_s": medians,
        "images_per_s_lowest_and_highest": {
            name: [round(min(values), 1), round(max(values), 1)] for name, values in rates.items()
        },
        "decoding_images_per_s": round(1 / decode_s, 1),
        "epochs_reckoned_with": num_epochs,
        **ratios,
        "loop_with_decoding_over_torchvision": with_decoding,
    }


def _measure_in_turns(
    measured: dict[str, Measured], num_steps: int, num_rounds: int, batch_size: int
) -> dict[str, list[float]]:
    """Images per second in each round.

    The candidates take turns, so that a busy machine slows all of them equally.
    """
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for run in measured.values():
        run(NUM_WARM_UP_STEPS)
    for _ in range(num_rounds):
        for name, run in measured.items():
            started = time.perf_counter()
            run(num_steps)
            _wait()
            rates[name].append(num_steps * batch_size / (time.perf_counter() - started))
            time.sleep(PAUSE_S)
    return rates


def _bare(recipe: Recipe) -> Measured:
    """Only forward and backward passes, on one batch that stays on the device."""
    run = _begin(recipe, _noise(recipe), Path("nowhere"))
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
        _wait()

    return passes


def _loop(recipe: Recipe, train: Split, folder: Path) -> Measured:
    """The steps of an epoch in `lookalike train`. Reading the last loss waits for the device."""
    run = _begin(recipe, train, folder)

    def steps(num_steps: int) -> None:
        whole = run.plan
        targets = train.targets[: num_steps * recipe.batch_size]
        run.plan = replace(whole, train=Split(train.canvases, targets))
        run.position.step = run.position.num_seen = 0
        train_epoch(run, StopRequest())
        run.plan = whole

    return steps


def _begin(recipe: Recipe, train: Split, folder: Path) -> Run:
    plan = Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, num_classes=10),
        train=train,
        held_out=train,
        directory=folder,
        fingerprint="",
    )
    return Run.begin(plan, Workers(device=best_device()))


def _noise(recipe: Recipe) -> Split:
    """Eight random images. A run needs some images to measure its channel means."""
    shape = (8, recipe.image_size, recipe.image_size, 3)
    canvases = torch.randint(0, 256, shape, dtype=torch.uint8).numpy()
    return Split(canvases, torch.zeros(8).long())


def _read_split(data: str, size: int, num_images: int, folder: Path) -> Split:
    """Decode the training images into the cache."""
    examples = open_dataset(data).part("train")
    if num_images > len(examples):
        raise SystemExit(
            f"--steps needs {num_images:,} training images but {data} has {len(examples):,}; "
            "pass fewer --steps"
        )
    file, num_threads = folder / "canvases.u8", os.cpu_count() or 1
    canvases = cached_canvases(data, examples, size, file, num_threads=num_threads)
    names = class_names(examples)
    targets = [names.index(str(example.label)) for example in canvases.examples]
    return Split(canvases.pixels, torch.tensor(targets))


def _torchvision(folder: Path, size: int, batch_size: int) -> Measured:
    """Training as in torchvision's reference scripts, with the given image size and batch size."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    images = datasets.ImageFolder(str(root), transform)
    loader = DataLoader(
        images,
        batch_size,
        shuffle=True,
        num_workers=os.cpu_count() or 1,
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
            logits = network(inputs.to(device, non_blocking=True))
            loss = nn.functional.cross_entropy(logits, targets.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        _wait()

    return steps


def _profile(loop: Measured, num_steps: int) -> list[str]:
    """The slowest operations of the loop, and their shares of the time."""
    with profile() as profiler:
        loop(num_steps)
    on_gpu = torch.cuda.is_available()
    operations = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.key)
        for event in profiler.key_averages()
    ]
    total_us = sum(time_us for time_us, _ in operations)
    slowest = sorted(operations, reverse=True)[:NUM_PROFILED]
    return [f"{time_us / total_us:.1%} {name}" for time_us, name in slowest]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
