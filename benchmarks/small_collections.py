"""How good are the default settings on a small collection, compared with a search over the recipe?

    python -m benchmarks.small_collections DATA [--per-class 10 30 100 300] [--name NAME]
        [--workdir runs/small] [--image-size 96] [--minutes 600]

DATA is a folder with `train` and `val`. For each number of images per class, a seeded subset of
`train` is trained on, and `val` judges. The search has two rounds:

1. Each recipe of `CHANGES` differs from the defaults in one or two settings. It is trained for a
   quarter of the epochs.
2. The two best of them, and both changes together, are trained for as many epochs as the defaults.

So the search uses the judging images, and the defaults do not. This favours the search.

Each result is kept in the working directory, and a second call measures only what is missing.
Several processes can share the working directory, for example one per core.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.record import record
from benchmarks.subsets import choose, kept_or_measured, read_splits, result_file, train_and_score
from training.learning.plan import Split, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.sized_settings import WARMUP_SHARE, sized_settings

CHANGES: Mapping[str, Mapping[str, float]] = {
    "no mixing": {"mixup": 0, "cutmix": 0},
    "half the rate": {"learning_rate": 0.5},
    "twice the rate": {"learning_rate": 2},
    "batches twice as large": {"batch_size": 2, "learning_rate": 1.5},
    "crops from 8 %": {"min_crop_area": 0.08 / 0.35},
    "4 times the weight decay": {"weight_decay": 4},
}
"""The recipes of the search: for each changed setting, the factor of the default."""
FIRST_ROUND_SHARE = 0.25
"""Share of the epochs in the first round."""


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
    train, held_out, _ = read_splits(arguments.data, arguments.image_size, arguments.workdir)
    deadline_s = monotonic() + 60 * arguments.minutes
    figures: dict[str, dict[str, Any]] = {}
    for per_class in arguments.per_class:
        subset = choose(train, per_class)

        def run(name: str, recipe: Recipe, subset: Split = subset) -> dict[str, Any] | None:
            result = kept_or_measured(
                result_file(arguments.workdir, subset, recipe),
                partial(measure, subset, held_out, recipe),
                is_over=monotonic() > deadline_s,
            )
            print(f"{len(subset.targets)} images, {name}: {result}", flush=True)
            return result

        defaults = default_recipe(len(subset.targets), arguments.image_size)
        figures[str(per_class)] = search(defaults, run)
    record(arguments.name, {"image_size": arguments.image_size, "by_images_per_class": figures})


def default_recipe(num_images: int, image_size: int) -> Recipe:
    """The default recipe for a number of images, but with another image size.

    The classes are equally large, so `class_balance` has no effect and is left out.
    """
    start = replace(modern(), image_size=image_size)
    return replace(start, **sized_settings(start, num_images, ("image_size", "class_balance")))


def search(defaults: Recipe, run: Callable[[str, Recipe], dict[str, Any] | None]) -> dict[str, Any]:
    """Train with the defaults and with the recipes of the search. Return all figures of one size.

    `run(name, recipe)` gives the result of a recipe, or None if there was no time for it.
    """
    quick_epochs = max(1, round(FIRST_ROUND_SHARE * defaults.epochs))
    full = {"defaults": run("defaults", defaults)}
    quick: dict[str, dict[str, Any]] = {}
    for name in CHANGES:
        if result := run(
            f"{name}, first round", with_epochs(changed(defaults, name), quick_epochs)
        ):
            quick[name] = result
    if len(quick) == len(CHANGES):
        best = sorted(quick, key=lambda name: quick[name]["top1"], reverse=True)[:2]
        for names in ([best[0]], [best[1]], best):
            full[", ".join(names)] = run(", ".join(names), changed(defaults, *names))
    done = {name: result for name, result in full.items() if result}
    figures: dict[str, Any] = {"first_round": quick, "full": full}
    if full["defaults"] and len(done) == len(full) > 1:
        top1 = {name: result["top1"] for name, result in done.items()}
        figures["best"] = max(top1, key=lambda name: top1[name])
        points = 100 * (top1[figures["best"]] - top1["defaults"])
        figures["points_below_the_best"] = round(points, 2)
    return figures


def changed(recipe: Recipe, *names: str) -> Recipe:
    """A recipe with some of CHANGES."""
    settings: dict[str, Any] = {}
    for name in names:
        for setting, factor in CHANGES[name].items():
            value = settings.get(setting, getattr(recipe, setting))
            settings[setting] = type(value)(value * factor)
    return replace(recipe, **settings)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """A recipe with another number of epochs, and the same share of them for the warm-up."""
    return replace(recipe, epochs=epochs, warmup_epochs=round(WARMUP_SHARE * epochs, 2))


def measure(train: Split, held_out: Split, recipe: Recipe) -> dict[str, Any]:
    """Train with a recipe. Return top-1 on all held-out images, the time, and the settings."""
    architecture = architecture_of(recipe, num_classes=int(train.targets.max()) + 1)
    names = ("epochs", "batch_size", "learning_rate", "warmup_epochs", "mixup", "cutmix")
    settings = {name: getattr(recipe, name) for name in (*names, "min_crop_area", "weight_decay")}
    return train_and_score(train, held_out, recipe, architecture) | settings


if __name__ == "__main__":
    main()
