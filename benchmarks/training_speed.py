"""How fast is training compared with the bare network and with torchvision's own training?

    python -m benchmarks.training_speed DATA [--image-size 128] [--batch-size 128] [--steps 30]
        [--rounds 3] [--name NAME] [--profile]

DATA is a folder with class folders, or its subfolder `train` contains the class folders. One
process measures the following candidates. In each of `--rounds` rounds, each candidate runs
`--steps` batches.

- `bare`: the forward and backward passes of the `modern` recipe's network, on one batch that stays
  on the device. No images are read and no weights are updated.
- `loop`: the function `train_epoch` of `lookalike train`: canvases from the cache, crops, flips,
  PCA colour noise, mixup and cutmix, both passes, gradient clipping, update.
- `loop_as_torchvision`: the same loop with torchvision's layout and settings: float32, no batch
  norm, no label smoothing, no colour noise, no mixing, and crops with at least 8 % of the area.
- `bare_as_torchvision`: only the forward and backward passes of `loop_as_torchvision`.
- `torchvision`: ImageFolder, RandomResizedCrop, flips and normalisation in one loader process per
  core, torchvision.models.alexnet, SGD.

The time to decode the images into the cache is also measured.
`loop_with_decoding_over_torchvision` includes this time, spread over the epochs of the recipe. On a
GPU, `bare` is the speed on synthetic data. With `--profile`, the slowest operations of the loop are
also recorded.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from benchmarks.record import record
from benchmarks.training_loops import (
    Measured,
    bare_passes,
    read_split,
    slowest_operations,
    training_loop,
    wait_for_device,
)
from training.devices import best_device, device_name
from training.learning.recipe import modern
from training.learning.trainer import keep_freed_memory

PAUSE_S = 3.0
"""Pause after each run, because torchvision's loaders continue until their queue is full."""
NUM_WARM_UP_STEPS = 3
RATIOS = {
    "loop_share_of_bare": ("loop", "bare"),
    "loop_as_torchvision_share_of_bare": ("loop_as_torchvision", "bare_as_torchvision"),
    "loop_over_torchvision": ("loop", "torchvision"),
    "loop_as_torchvision_over_torchvision": ("loop_as_torchvision", "torchvision"),
}


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
        learning_rate=1e-6,  # higher rates diverge without batch norm, and only speed matters
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        train = read_split(arguments.data, size, batch_size * arguments.steps, folder)
        decode_s = (time.perf_counter() - started) / len(train.targets)
        measured = {
            "bare": bare_passes(recipe),
            "loop": training_loop(recipe, train, folder),
            "bare_as_torchvision": bare_passes(as_torchvision),
            "loop_as_torchvision": training_loop(as_torchvision, train, folder),
            "torchvision": _torchvision(Path(arguments.data), size, batch_size),
        }
        keep_freed_memory()
        rates = _measure_in_turns(measured, arguments.steps, arguments.rounds, batch_size)
        operations = []
        if arguments.profile:
            operations = slowest_operations(measured["loop"], arguments.steps)
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
    """The speeds in images per second, and their ratios.

    `rates` contains the speed in each round. A ratio is the median over the rounds. `decode_s` is
    the time to decode one image.
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
    """The images per second of each candidate in each round.

    The candidates take turns, so that a busy machine slows all of them equally.
    """
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for run in measured.values():
        run(NUM_WARM_UP_STEPS)
    for _ in range(num_rounds):
        for name, run in measured.items():
            started = time.perf_counter()
            run(num_steps)
            wait_for_device()
            rates[name].append(num_steps * batch_size / (time.perf_counter() - started))
            time.sleep(PAUSE_S)
    return rates


def _torchvision(folder: Path, size: int, batch_size: int) -> Measured:
    """Training as in torchvision's reference scripts, with the given sizes."""
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
        wait_for_device()

    return steps


if __name__ == "__main__":
    main()
