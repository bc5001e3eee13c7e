"""How good are the default settings on a small collection, compared with a search over the recipe?

    python -m benchmarks.small_collections DATA [--per-class 10 30 100 300] [--name NAME]
        [--workdir runs/small] [--image-size 96] [--minutes 600]

DATA is a folder with `train` and `val`. For each number of images per class, a seeded subset of
`train` is trained on: with the default settings, and with every recipe of a search. `val` judges.
Each result is kept in the working directory, and a second call measures only what is missing.
Several processes can share the working directory, for example one per core.

The search changes one or two settings of a base recipe at a time (`searched_recipes`).
"""

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from benchmarks.record import record
from training.data.cache import cached_canvases
from training.data.datasets import class_names, open_dataset
from training.devices import best_device
from training.files import write_atomically
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate
from training.learning.plan import Plan, Split, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.sized_settings import sized_settings
from training.learning.trainer import keep_freed_memory, train_network
from training.parallel import num_cores

NUM_VALIDATED = 50
"""Number of held-out images that are scored after each epoch. All are scored at the end."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--per-class", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--name", default="small_collections")
    parser.add_argument("--workdir", type=Path, default=Path("runs/small"))
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=600, help="start no run after this time")
    arguments = parser.parse_args()
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    train, held_out = read_splits(arguments.data, arguments.image_size, arguments.workdir)
    deadline_s = monotonic() + 60 * arguments.minutes
    keep_freed_memory()
    results: dict[str, dict[str, Any]] = {}
    for per_class in arguments.per_class:
        subset = choose(train, per_class)
        recipes = searched_recipes(len(subset.targets), arguments.image_size)
        results[str(per_class)] = {}
        for name, recipe in recipes.items():
            key = hashlib.sha256(json.dumps([per_class, recipe.as_dict()]).encode()).hexdigest()
            file = arguments.workdir / f"{Path(arguments.data).name}-{key[:16]}.json"
            result = kept_or_measured(file, subset, held_out, recipe, deadline_s)
            if result is None:
                continue
            results[str(per_class)][name] = result
            print(f"{per_class} per class, {name}: {result}", flush=True)
    figures = summary(results)
    print(json.dumps(figures, indent=1))
    record(arguments.name, {"image_size": arguments.image_size, "by_images_per_class": figures})


def kept_or_measured(
    file: Path, subset: Split, held_out: Split, recipe: Recipe, deadline_s: float
) -> dict[str, Any] | None:
    """The result in `file`, measured first if needed.

    Return None if another process measures it now, or if the time is over.
    """
    lock = FileLock(file.with_suffix(".lock"), blocking=False)
    try:
        with lock:
            if not file.exists():
                if monotonic() > deadline_s:
                    return None
                result = measure(subset, held_out, recipe)
                write_atomically(file, json.dumps(result).encode())
    except Timeout:
        return None
    return dict(json.loads(file.read_text()))


def read_splits(data: str, image_size: int, workdir: Path) -> tuple[Split, Split]:
    """Decode the training images and the held-out images of a data set."""
    dataset = open_dataset(data)
    names = class_names(dataset.part("train"))
    splits = []
    for part in ("train", "held-out"):
        file = workdir / f"{Path(data).name}-{part}-{image_size}.u8"
        canvases = cached_canvases(
            data, dataset.part(part), image_size, file, num_threads=num_cores()
        )
        targets = [names.index(str(example.label)) for example in canvases.examples]
        splits.append(Split(canvases.pixels, torch.tensor(targets)))
    train, held_out = splits
    return train, held_out


def choose(split: Split, per_class: int) -> Split:
    """The same `per_class` random images of every class in every run."""
    random = np.random.default_rng(0)
    order = random.permutation(len(split.targets))
    targets = split.targets.numpy()[order]
    chosen = np.sort(
        np.concatenate([order[targets == target][:per_class] for target in np.unique(targets)])
    )
    return Split(np.ascontiguousarray(split.canvases[chosen]), split.targets[chosen])


def searched_recipes(num_images: int, image_size: int) -> dict[str, Recipe]:
    """The default recipe for a number of images, the recipe `modern`, and those of the search."""
    start = replace(modern(), image_size=image_size)
    epochs = {100: 400, 300: 160, 1000: 80, 3000: 40}[num_images]
    base = replace(
        start,
        batch_size=32 if num_images < 2000 else 64,
        learning_rate=0.02 if num_images < 2000 else 0.03,
        epochs=epochs,
        warmup_epochs=epochs / 20,
    )
    changes: dict[str, Mapping[str, Any]] = {
        "base": {},
        "no mixing": {"mixup": 0.0, "cutmix": 0.0},
        "half the epochs": {"epochs": epochs // 2, "warmup_epochs": epochs / 40},
        "twice the epochs": {"epochs": 2 * epochs, "warmup_epochs": epochs / 10},
        "batches twice as large": {
            "batch_size": 2 * base.batch_size,
            "learning_rate": round(1.5 * base.learning_rate, 4),
        },
        "crops from 8 %": {"min_crop_area": 0.08},
        "half the rate": {"learning_rate": base.learning_rate / 2},
        "twice the rate": {"learning_rate": base.learning_rate * 2},
    }
    sized = sized_settings(start, num_images, ("image_size", "class_balance"), is_fine_tuned=False)
    recipes = {"defaults": replace(start, **sized), "modern": start}
    return recipes | {name: replace(base, **settings) for name, settings in changes.items()}


def measure(train: Split, held_out: Split, recipe: Recipe) -> dict[str, Any]:
    """Train with a recipe. Return top-1 on all held-out images, and the training time."""
    few = slice(0, None, max(1, len(held_out.targets) // NUM_VALIDATED))
    with TemporaryDirectory() as directory:
        plan = Plan(
            recipe=recipe,
            architecture=architecture_of(recipe, num_classes=int(train.targets.max()) + 1),
            train=train,
            held_out=Split(held_out.canvases[few], held_out.targets[few]),
            directory=Path(directory),
            fingerprint="small collections",
        )
        started_s = perf_counter()
        network = train_network(plan, Workers(device=best_device()), resume=False)
        training_s = perf_counter() - started_s
    scores = evaluate(network, held_out.canvases, held_out.targets)
    names = ("epochs", "batch_size", "learning_rate", "warmup_epochs", "mixup", "cutmix")
    settings = {name: getattr(recipe, name) for name in (*names, "min_crop_area")}
    return {
        "top1": round(scores.top1, 4),
        "training_s": round(training_s),
        **settings,
    }


def summary(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """For each size: top-1 of every recipe, and how far the defaults are from the best one."""
    figures = {}
    for per_class, by_name in results.items():
        top1 = {name: run["top1"] for name, run in by_name.items()}
        best = max(top1, key=lambda name: top1[name])
        figures[per_class] = {
            "best": best,
            "points_below_the_best": round(100 * (top1[best] - top1.get("defaults", 0.0)), 2),
            "top1": dict(sorted(top1.items(), key=lambda pair: -pair[1])),
            "runs": by_name,
        }
    return figures


if __name__ == "__main__":
    main()
