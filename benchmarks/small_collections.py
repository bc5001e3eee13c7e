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
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.record import record
from benchmarks.subsets import choose, kept_or_measured, read_splits, result_file, train_and_score
from training.learning.plan import Split, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.sized_settings import sized_settings

BASE_EPOCHS = {10: 400, 30: 160, 100: 80, 300: 40}
"""The epochs of the base recipe for each number of images per class."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument(
        "--per-class", type=int, nargs="+", default=[*BASE_EPOCHS], choices=[*BASE_EPOCHS]
    )
    parser.add_argument("--name", default="small_collections")
    parser.add_argument("--workdir", type=Path, default=Path("runs/small"))
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=600, help="start no run after this time")
    arguments = parser.parse_args()
    train, held_out, _ = read_splits(arguments.data, arguments.image_size, arguments.workdir)
    deadline_s = monotonic() + 60 * arguments.minutes
    results: dict[str, dict[str, Any]] = {}
    for per_class in arguments.per_class:
        subset = choose(train, per_class)
        recipes = searched_recipes(per_class, len(subset.targets), arguments.image_size)
        results[str(per_class)] = {}
        for name, recipe in recipes.items():
            result = kept_or_measured(
                result_file(arguments.workdir, subset, recipe),
                partial(measure, subset, held_out, recipe),
                is_over=monotonic() > deadline_s,
            )
            if result is None:
                continue
            results[str(per_class)][name] = result
            print(f"{per_class} per class, {name}: {result}", flush=True)
    figures = summary(results)
    record(arguments.name, {"image_size": arguments.image_size, "by_images_per_class": figures})


def searched_recipes(per_class: int, num_images: int, image_size: int) -> dict[str, Recipe]:
    """The default recipe for a number of images, the recipe `modern`, and those of the search.

    The classes are equally large, so `class_balance` has no effect and is left out. All recipes
    have the same image size, which is smaller than the default to save time.
    """
    start = replace(modern(), image_size=image_size)
    epochs = BASE_EPOCHS[per_class]
    base = replace(
        start,
        batch_size=32 if num_images < 2000 else 64,
        learning_rate=0.02 if num_images < 2000 else 0.03,
        epochs=epochs,
        warmup_epochs=epochs / 20,
    )
    unmixed = {"mixup": 0.0, "cutmix": 0.0}
    changes: dict[str, Mapping[str, Any]] = {
        "base": {},
        "no mixing": unmixed,
        "half the epochs": {"epochs": epochs // 2, "warmup_epochs": epochs / 40},
        "twice the epochs": {"epochs": 2 * epochs, "warmup_epochs": epochs / 10},
        "batches twice as large": {
            "batch_size": 2 * base.batch_size,
            "learning_rate": round(1.5 * base.learning_rate, 4),
        },
        "crops from 8 %": {"min_crop_area": 0.08},
        "half the rate": {"learning_rate": base.learning_rate / 2},
        "twice the rate": {"learning_rate": base.learning_rate * 2},
        "no mixing, half the rate": {**unmixed, "learning_rate": base.learning_rate / 2},
        "no mixing, twice the rate": {**unmixed, "learning_rate": base.learning_rate * 2},
        "4 times the weight decay": {"weight_decay": 0.002},
    }
    sized = sized_settings(start, num_images, ("image_size", "class_balance"))
    recipes = {"defaults": replace(start, **sized), "modern": start}
    return recipes | {name: replace(base, **settings) for name, settings in changes.items()}


def measure(train: Split, held_out: Split, recipe: Recipe) -> dict[str, Any]:
    """Train with a recipe. Return top-1 on all held-out images, the time, and the settings."""
    architecture = architecture_of(recipe, num_classes=int(train.targets.max()) + 1)
    names = ("epochs", "batch_size", "learning_rate", "warmup_epochs", "mixup", "cutmix")
    settings = {name: getattr(recipe, name) for name in (*names, "min_crop_area")}
    return train_and_score(train, held_out, recipe, architecture) | settings


def summary(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """For each size: top-1 of every recipe, and how far the defaults are from the best one."""
    figures: dict[str, Any] = {}
    for per_class, by_name in results.items():
        if not by_name:
            continue
        top1 = {name: run["top1"] for name, run in by_name.items()}
        best = max(top1, key=lambda name: top1[name])
        figures[per_class] = {"best": best}
        if "defaults" in top1:
            points = 100 * (top1[best] - top1["defaults"])
            figures[per_class]["points_below_the_best"] = round(points, 2)
        figures[per_class]["top1"] = dict(sorted(top1.items(), key=lambda pair: -pair[1]))
        figures[per_class]["runs"] = by_name
    return figures


if __name__ == "__main__":
    main()
