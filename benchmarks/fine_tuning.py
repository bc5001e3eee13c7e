"""Does it pay to start from a trained network, compared with training from scratch and a probe?

    python -m benchmarks.fine_tuning MODEL DATA [--val DATA] [--per-class 5 15 30 100]
        [--name NAME] [--workdir runs/fine-tuning] [--minutes 600] [--all-methods]

For each number of images per class, a seeded subset of the training images is used in several ways.
`val`, or the held-out images of DATA, judge. All ways use the image size of MODEL.

- `scratch`: the default settings with random weights
- `probe`: the layers of MODEL as they are, and a logistic regression
- `fine-tuned`: the default settings with --init MODEL
- with --all-methods, other ways to fine-tune (`METHODS`)

Each result is kept in the working directory, and a second call measures only what is missing. The
curves are drawn into docs/NAME.png.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.record import ROOT, record
from benchmarks.subsets import choose, kept_or_measured, read_splits, result_file, train_and_score
from training.devices import best_device
from training.learning.distributed import Workers
from training.learning.last_layer import first_weights
from training.learning.plan import Split, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.request import InitialModel, load_initial_model
from training.learning.sized_settings import sized_settings
from training.learning.training_images import DecodedImages
from training.plotting import plt, save_figure

METHODS: Mapping[str, Mapping[str, Any]] = {
    "scratch": {},
    "fine-tuned": {},
    "random last layer": {"last_layer": "random"},
    "old layers at a tenth of the rate": {"old_layers_rate": 0.1},
    "old layers frozen for a third": {"last_layer": "random", "frozen_share": 1 / 3},
}
"""The ways to train, and their settings that differ from the defaults."""
DEFAULT_METHODS = ("scratch", "fine-tuned")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--val")
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 15, 30, 100])
    parser.add_argument("--name", default="fine_tuning")
    parser.add_argument("--workdir", type=Path, default=Path("runs/fine-tuning"))
    parser.add_argument("--minutes", type=float, default=600, help="start no run after this time")
    parser.add_argument("--all-methods", action="store_true")
    arguments = parser.parse_args()
    initial = load_initial_model(arguments.model)
    assert initial is not None
    image_size = initial.architecture.image_size
    train, held_out, names = read_splits(
        arguments.data, image_size, arguments.workdir, arguments.val
    )
    deadline_s = monotonic() + 60 * arguments.minutes
    methods = METHODS if arguments.all_methods else DEFAULT_METHODS
    results: dict[int, dict[str, Any]] = {}
    for per_class in arguments.per_class:
        subset = choose(train, per_class)
        results[per_class] = {}
        for method in methods:
            recipe = recipe_of(method, initial, len(subset.targets))
            init = None if method == "scratch" else initial
            result = kept_or_measured(
                result_file(arguments.workdir, subset, recipe, init.id if init else ""),
                partial(measure, init, names, subset, held_out, recipe),
                is_over=monotonic() > deadline_s,
            )
            if result is not None:
                results[per_class][method] = result
                print(f"{per_class} per class, {method}: {result}", flush=True)
    draw(results, ROOT / "docs" / f"{arguments.name.replace('_', '-')}.png")
    record(
        arguments.name,
        {
            "num_held_out": len(held_out.targets),
            "image_size": image_size,
            "by_images_per_class": {str(number): runs for number, runs in results.items()},
        },
        model=arguments.model,
    )


def recipe_of(method: str, initial: InitialModel, num_images: int) -> Recipe:
    """The recipe of one of METHODS. All have the shapes of the initial model."""
    start = replace(modern(), **initial.shapes)
    fixed = ("class_balance", *initial.shapes)
    has_new_output = method != "scratch"
    sized = sized_settings(start, num_images, fixed, has_new_output=has_new_output)
    recipe = replace(start, **sized)
    settings = dict(METHODS[method])
    settings["frozen_epochs"] = round(recipe.epochs * settings.pop("frozen_share", 0))
    return replace(recipe, **settings)


def measure(
    init: InitialModel | None,
    names: tuple[str, ...],
    train: Split,
    held_out: Split,
    recipe: Recipe,
) -> dict[str, Any]:
    """Train from a model or from scratch. Return top-1 and the time, and the probe's top-1."""
    if init is None:
        return train_and_score(train, held_out, recipe, architecture_of(recipe, len(names)))
    images = DecodedImages(train, held_out, [], "")
    first = first_weights(init, names, recipe, images, Workers(device=best_device()))
    architecture = init.architecture_for(len(names), recipe.dropout)
    result = train_and_score(train, held_out, recipe, architecture, first)
    if first.probe_top1 is not None:
        result["probe_top1"] = round(first.probe_top1, 4)
    return result


def draw(results: Mapping[int, Mapping[str, Mapping[str, Any]]], file: Path) -> None:
    """Draw top-1 over the number of images per class, with a curve for each way."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    curves: dict[str, list[tuple[int, float]]] = {}
    for per_class, by_method in results.items():
        for method, result in by_method.items():
            curves.setdefault(method, []).append((per_class, result["top1"]))
            if method == "fine-tuned" and "probe_top1" in result:
                curves.setdefault("probe", []).append((per_class, result["probe_top1"]))
    for method, points in curves.items():
        sizes, shares = zip(*points, strict=True)
        axes.plot(sizes, [100 * share for share in shares], marker="o", label=method)
    axes.set(xscale="log", xlabel="images per class", ylabel="top-1 in %")
    axes.set_xticks(list(results), [str(number) for number in results], minor=False)
    axes.minorticks_off()
    axes.legend()
    save_figure(figure, file)


if __name__ == "__main__":
    main()
