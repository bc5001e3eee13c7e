"""What `lookalike train` and `evaluate` do, from the name of the data to a model directory and its figures."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from training.data.cache import Canvases, cached_canvases
from training.data.datasets import Dataset, class_names, fingerprint, open_dataset
from training.data.examples import DataError, Example
from training.data.skipped import SKIPPED_FILE, Skipped, write_skipped
from training.devices import best_device, device_name
from training.learning.checkpoint import CHECKPOINT_FILE, TrainingError, check_checkpoint
from training.learning.distributed import Workers, join_workers
from training.learning.evaluation import Metrics, average, evaluate, predictions, score
from training.learning.log import check_tensorboard
from training.learning.recipe import RECIPES, Recipe, RecipeError, contrast
from training.learning.trainer import (
    SHAPING_SETTINGS,
    Plan,
    Split,
    architecture_of,
    resolved,
    train_network,
)
from training.network.alexnet import Architecture
from training.network.export import load_network, save_model
from training.network.model import CARD_FILE, ModelCard, read_card
from training.network.towers import check_towers
from training.parallel import num_cores
from training.progress import Bar, console

CACHE_FOLDER = "canvases"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A training run as asked for."""

    data: str
    out: Path
    recipe: str = "modern"
    validation: str | None = None
    """Other data to hold out; None for the data's own held-out images, or a fifth of each class."""
    epochs: int | None = None
    image_size: int | None = None
    settings: Sequence[str] = ()
    """`name=value` each, over everything else."""
    resume: bool = False
    init: Path | None = None
    """A model directory whose weights to begin with; its last layer is drawn anew where the classes are others."""
    cache: Path | None = None
    """Where to keep the decoded images for other runs; None keeps them in `out` until the run is done."""
    tower_devices: Sequence[str] = ()
    has_tensorboard: bool = False


@dataclass(frozen=True)
class Result:
    """A finished model, and the files that were left out."""

    card: ModelCard
    skipped: list[Skipped]


@dataclass(frozen=True)
class _Images:
    """The decoded images of a run."""

    train: Split
    held_out: Split
    skipped: list[Skipped]
    fingerprint: str
    """Names those that are used."""


def train(request: Request) -> Result:
    """Trains a network and writes the model directory; raises UserError. What is unreadable is skipped, and listed in skipped.csv.

    Under torchrun every process trains a part of each batch, the first one writes, and all return what it wrote.
    """
    with join_workers() as workers:
        _check_out(request, workers)
        if request.has_tensorboard:
            check_tensorboard()
        dataset = open_dataset(request.data)
        recipe, initial = _resolve(request, dataset)
        chosen = _choose(request, dataset)
        architecture = architecture_of(recipe, len(chosen.class_names))
        if initial:
            architecture = replace(
                Architecture(**initial.card.architecture),
                num_classes=architecture.num_classes,
                dropout=recipe.dropout,
            )
        _check_run(request, recipe, architecture)
        cache = request.cache or request.out / CACHE_FOLDER
        images = _decode_all(request, chosen, recipe, cache, workers)
        plan = Plan(
            recipe=recipe,
            architecture=architecture,
            train=images.train,
            held_out=images.held_out,
            directory=request.out,
            fingerprint=images.fingerprint + (initial.card.id if initial else ""),
            initial=initial.weights(chosen.class_names) if initial else None,
            tower_devices=request.tower_devices,
            has_tensorboard=request.has_tensorboard,
        )
        network = train_network(plan, workers, resume=request.resume)
        if not workers.is_first:
            workers.wait()
            return Result(read_card(request.out), images.skipped)
        scores = evaluate(network, images.held_out.canvases, images.held_out.targets)
        card = save_model(
            network,
            request.out,
            class_names=chosen.class_names,
            recipe=resolved(plan, workers).as_dict(),
            metrics=scores.as_dict(),
            data={
                "name": lasting_name(request.data),
                "num_train": len(images.train.targets),
                "num_held_out": len(images.held_out.targets),
                "num_skipped": len(images.skipped),
                "validation": lasting_name(request.validation) if request.validation else None,
                "init": initial.card.id if initial else None,
                "device": device_name(workers.device),
                "num_processes": workers.count,
            },
        )
        (request.out / CHECKPOINT_FILE).unlink(missing_ok=True)
        if request.cache is None:
            shutil.rmtree(cache)
        workers.wait()
        return Result(card, images.skipped)


@dataclass(frozen=True)
class _Initial:
    """The model that a run begins with."""

    directory: Path
    card: ModelCard
    state: Mapping[str, Tensor]

    def weights(self, names: Sequence[str]) -> dict[str, Tensor]:
        """All of them where the classes are the same; the last layer is left out where they are not."""
        keeps_output = tuple(names) == self.card.class_names
        return {
            name: tensor
            for name, tensor in self.state.items()
            if keeps_output or not name.startswith("output.")
        }


def resolve_request(request: Request) -> Recipe:
    """The recipe that `train` will follow; raises UserError."""
    return _resolve(request, open_dataset(request.data))[0]


def _resolve(request: Request, dataset: Dataset) -> tuple[Recipe, _Initial | None]:
    """The recipe, and the model to begin with, whose shapes the recipe takes; raises RecipeError where a setting asks for others."""
    defaults = dataset.recipe_defaults
    if request.init is None:
        return resolve_recipe(request, defaults), None
    network, card = load_network(request.init)
    shapes = {
        name: getattr(network.architecture, name) for name in SHAPING_SETTINGS if name != "dropout"
    }
    recipe = resolve_recipe(request, {**defaults, **shapes})
    if differing := [name for name in shapes if getattr(recipe, name) != shapes[name]]:
        raise RecipeError(
            f"{request.init} has {contrast(shapes, recipe.as_dict(), differing)}; leave these to --init, or train without it"
        )
    return recipe, _Initial(request.init, card, network.state_dict())


@dataclass(frozen=True)
class _Chosen:
    """The images to train on and to hold out, the cache's name of either part, and the names of the classes in order."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    part_names: tuple[str, str]
    class_names: tuple[str, ...]


def _choose(request: Request, dataset: Dataset) -> _Chosen:
    """Raises DataError where these images cannot be learnt from, or not be validated with."""
    is_split = request.validation is None or dataset.held_out is not None
    train_examples = _labelled(dataset.part("train" if is_split else "all"))
    held_out = _labelled(
        open_dataset(request.validation).part("all")
        if request.validation
        else dataset.part("held-out")
    )
    if not train_examples:
        raise DataError(
            f"{request.data} has no labelled images to train on; put them in a folder for each class, a CSV (path,label), or tar shards"
        )
    names = class_names(train_examples)
    _check_classes(names, held_out, request)
    return _Chosen(
        train_examples,
        held_out,
        ("train" if is_split else "all", "validation" if request.validation else "held-out"),
        names,
    )


def request_fingerprint(request: Request) -> str:
    """A name for the images that `train` would read, without decoding one; raises DataError."""
    chosen = _choose(request, open_dataset(request.data))
    return fingerprint((*chosen.train, *chosen.held_out))


def _check_run(request: Request, recipe: Recipe, architecture: Architecture) -> None:
    """Raises UserError for what would otherwise show after the decoding only."""
    if request.tower_devices:
        check_towers(architecture, request.tower_devices)
        if recipe.compilation == "on":
            raise RecipeError(
                "compilation=on does not reach a tower a device; leave it out, or train without --tower-devices"
            )
    checkpoint = request.out / CHECKPOINT_FILE
    if request.resume and checkpoint.is_file():
        check_checkpoint(checkpoint, recipe)


def _decode_all(
    request: Request, chosen: _Chosen, recipe: Recipe, cache: Path, workers: Workers
) -> _Images:
    """Decodes the images of a run; raises DataError where too few can be. The other processes wait for the first one."""
    names = chosen.class_names
    if workers.is_first:
        request.out.mkdir(parents=True, exist_ok=True)
        console.print(
            f"Training on {len(chosen.train):,} images of {len(names)} classes, {len(chosen.held_out):,} held out; "
            f"{recipe.image_size} pixels, {recipe.epochs} epochs"
        )
    else:
        workers.wait()
    try:
        sources = (lasting_name(request.data), lasting_name(request.validation or request.data))
        train_canvases, held_out_canvases = (
            _decode(source, examples, recipe.image_size, cache, part)
            for source, examples, part in zip(
                sources, (chosen.train, chosen.held_out), chosen.part_names, strict=True
            )
        )
    finally:
        if workers.is_first:
            workers.wait()
    skipped = train_canvases.skipped + held_out_canvases.skipped
    if workers.is_first:
        write_skipped(skipped, request.out / SKIPPED_FILE)
    _check_readable(train_canvases.examples, held_out_canvases.examples, names, skipped, request)
    used = fingerprint((*train_canvases.examples, *held_out_canvases.examples))
    return _Images(_split(train_canvases, names), _split(held_out_canvases, names), skipped, used)


def resolve_recipe(request: Request, defaults: Mapping[str, Any]) -> Recipe:
    """The named recipe, with what the data asks for, then the request's own settings over both; raises RecipeError."""
    if request.recipe not in RECIPES:
        raise RecipeError(f"the recipe must be one of {', '.join(RECIPES)}; got {request.recipe}")
    recipe = replace(RECIPES[request.recipe](), **defaults)
    if request.epochs is not None:
        recipe = replace(recipe, epochs=request.epochs)
    if request.image_size is not None:
        recipe = replace(recipe, image_size=request.image_size)
    return recipe.with_settings(request.settings)


def lasting_name(data: str) -> str:
    """The name of the data that is right from any working directory."""
    return data if data == "digits" else str(Path(data).resolve())


def _check_out(request: Request, workers: Workers) -> None:
    if (request.out / CARD_FILE).exists():
        raise TrainingError(
            f"{request.out} already holds a model; pass another --out, or remove that directory first"
        )
    if request.out.exists() and not request.out.is_dir():
        raise TrainingError(f"{request.out} is a file; --out must name a directory")
    if (request.out / CHECKPOINT_FILE).exists() and not request.resume:
        raise TrainingError(
            f"{request.out} holds an unfinished run; pass --resume to go on with it, or remove that directory first"
        )
    if request.tower_devices and workers.count > 1:
        raise TrainingError(
            f"--tower-devices is for one process, which drives both devices; torchrun has started {workers.count}"
        )


def _labelled(examples: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(example for example in examples if example.label is not None)


def _check_classes(names: Sequence[str], held_out: Sequence[Example], request: Request) -> None:
    if len(names) < 2:
        raise DataError(
            f"{request.data} has a single class ({names[0]}); a network needs two or more to tell apart"
        )
    source = request.validation or request.data
    if not held_out:
        raise DataError(
            f"{source} has no labelled image to validate with; pass images of the same classes as --val DATA"
        )
    found = class_names(held_out)
    if unknown := sorted(set(found) - set(names)):
        raise DataError(
            f"the held-out images have classes that training has not: {', '.join(unknown[:5])}; add images of them, or leave them out"
        )
    if missing := sorted(set(names) - set(found)):
        raise DataError(
            f"{source} has no image to validate with of class {', '.join(missing[:5])}; add some (of two images, one is held out), "
            "or leave the class out"
        )


def _check_readable(
    train: Sequence[Example],
    held_out: Sequence[Example],
    names: Sequence[str],
    skipped: Sequence[Skipped],
    request: Request,
) -> None:
    if not train:
        raise DataError(
            f"{request.data} has no readable image: {skipped[0].path}: {skipped[0].reason}; all are listed in {request.out / SKIPPED_FILE}"
        )
    if gone := sorted(set(names) - set(class_names(train))):
        raise DataError(
            f"no image of class {', '.join(gone[:5])} can be read; the reasons are in {request.out / SKIPPED_FILE}"
        )
    if gone := sorted(set(names) - set(class_names(held_out))):
        raise DataError(
            f"no image to validate with of class {', '.join(gone[:5])} can be read; the reasons are in {request.out / SKIPPED_FILE}"
        )


def _decode(data: str, examples: Sequence[Example], size: int, cache: Path, part: str) -> Canvases:
    with Bar("Decoding", len(examples)) as bar:
        return cached_canvases(
            data,
            examples,
            size,
            cache / f"{part}-{size}px.u8",
            threads=num_cores(),
            done=bar.advance,
        )


def _split(canvases: Canvases, names: Sequence[str]) -> Split:
    index = {name: number for number, name in enumerate(names)}
    return Split(
        canvases.pixels,
        torch.tensor(
            [index[str(example.label)] for example in canvases.examples], dtype=torch.int64
        ),
    )


def evaluate_models(
    directories: Sequence[Path], data: str, *, num_crops: int = 1, cache: Path | None = None
) -> Metrics:
    """Scores model directories, their probabilities averaged, on all labelled images of `data`, by label; raises UserError.

    The decoded images are kept in `cache` for other times; without it they lie where temporary files do, and are removed.
    """
    device = best_device()
    models = [load_network(directory, device) for directory in directories]
    names = models[0][1].class_names
    if odd := next(
        (place for place, (_, card) in enumerate(models) if card.class_names != names), None
    ):
        raise DataError(
            f"{directories[odd]} has other classes than {directories[0]}; average models of the same classes only"
        )
    examples = _labelled(open_dataset(data).part("all"))
    if unknown := sorted(set(class_names(examples)) - set(names)):
        raise DataError(
            f"{data} has classes that {directories[0]} does not know: {', '.join(unknown[:5])}; pass images of its own classes"
        )
    with TemporaryDirectory() as scratch:
        by_size = {
            size: _decode(lasting_name(data), examples, size, cache or Path(scratch), "evaluated")
            for size in dict.fromkeys(card.image_size for _, card in models)
        }
        first = next(iter(by_size.values()))
        if not first.examples:
            raise DataError(
                f"{data} has no readable labelled image; pass a folder of class folders, a CSV (path,label), or tar shards"
            )
        for item in first.skipped:
            console.print(f"Skipped {item.path}: {item.reason}")
        probabilities = average(
            [
                predictions(network, by_size[card.image_size].pixels, num_crops=num_crops)
                for network, card in models
            ]
        )
        return score(probabilities, _split(first, names).targets)
