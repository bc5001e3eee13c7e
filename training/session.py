"""What `lookalike train` and `evaluate` do, from the name of the data to a model directory and its figures."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from training.cache import SKIPPED_FILE, Skipped, decode_canvases, write_skipped
from training.datasets import DataError, Example, class_names, held_out_examples, open_dataset
from training.evaluation import Metrics, evaluate
from training.export import load_network, save_model
from training.model import CARD_FILE, ModelCard
from training.progress import Bar, console
from training.recipe import RECIPES, Recipe, RecipeError
from training.trainer import CHECKPOINT_FILE, Split, TrainingError, best_device, train_network


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


@dataclass(frozen=True)
class Result:
    """A finished model, and the files that were left out."""

    card: ModelCard
    skipped: list[Skipped]


def train(request: Request) -> Result:
    """Trains a network and writes the model directory; raises UserError. What is unreadable is skipped, and listed in skipped.csv."""
    _check_out(request)
    dataset = open_dataset(request.data)
    recipe = resolve_recipe(request, dataset.recipe_defaults)
    is_split = request.validation is None or dataset.held_out is not None
    train_examples = _labelled(dataset.part("train" if is_split else "all"))
    held_out = _labelled(held_out_examples(request.data, request.validation))
    names = class_names(train_examples)
    if not train_examples:
        raise DataError(f"{request.data} has no labelled images to train on; put them in a folder for each class, or in a CSV (path,label)")
    _check_classes(names, held_out, request)
    request.out.mkdir(parents=True, exist_ok=True)
    console.print(
        f"Training on {len(train_examples):,} images of {len(names)} classes, {len(held_out):,} held out; "
        f"{recipe.image_size} pixels, {recipe.epochs} epochs"
    )
    files = [request.out / f".{part}.u8" for part in ("train", "held-out")]
    try:
        (train_split, train_kept, skipped), (held_out_split, held_out_kept, more) = (
            _decode(examples, names, recipe.image_size, file) for examples, file in zip((train_examples, held_out), files, strict=True)
        )
        skipped = skipped + more
        write_skipped(skipped, request.out / SKIPPED_FILE)
        _check_readable(train_kept, held_out_kept, names, skipped, request)
        network = train_network(
            train_split, held_out_split, recipe, len(names), request.out,
            fingerprint=_fingerprint((*train_kept, *held_out_kept)), resume=request.resume,
        )  # fmt: skip
        scores = evaluate(network, held_out_split.canvases, held_out_split.targets)
        card = save_model(
            network, request.out, class_names=names, recipe=recipe.as_dict(), metrics=scores.as_dict(),
            data={
                "name": _lasting(dataset.name), "num_train": len(train_kept), "num_held_out": len(held_out_kept),
                "num_skipped": len(skipped), "validation": _lasting(request.validation) if request.validation else None,
            },
        )  # fmt: skip
        (request.out / CHECKPOINT_FILE).unlink(missing_ok=True)
        return Result(card, skipped)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


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


def _lasting(data: str) -> str:
    """The name of the data that is right from any working directory."""
    return data if data == "digits" else str(Path(data).resolve())


def _check_out(request: Request) -> None:
    if (request.out / CARD_FILE).exists():
        raise TrainingError(f"{request.out} already holds a model; pass another --out, or remove that directory first")
    if request.out.exists() and not request.out.is_dir():
        raise TrainingError(f"{request.out} is a file; --out must name a directory")
    if (request.out / CHECKPOINT_FILE).exists() and not request.resume:
        raise TrainingError(f"{request.out} holds an unfinished run; pass --resume to go on with it, or remove that directory first")


def _labelled(examples: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(example for example in examples if example.label is not None)


def _check_classes(names: Sequence[str], held_out: Sequence[Example], request: Request) -> None:
    if len(names) < 2:
        raise DataError(f"{request.data} has a single class ({names[0]}); a network needs two or more to tell apart")
    if unknown := sorted(set(class_names(held_out)) - set(names)):
        raise DataError(
            f"the held-out images have classes that training has not: {', '.join(unknown[:5])}; add images of them, or leave them out"
        )


def _check_readable(
    train: Sequence[Example], held_out: Sequence[Example], names: Sequence[str], skipped: Sequence[Skipped], request: Request
) -> None:
    if not train:
        raise DataError(
            f"{request.data} has no readable image: {skipped[0].path}: {skipped[0].reason}; all are listed in {request.out / SKIPPED_FILE}"
        )
    if gone := sorted(set(names) - set(class_names(train))):
        raise DataError(f"no image of class {', '.join(gone[:5])} can be read; the reasons are in {request.out / SKIPPED_FILE}")
    if not held_out:
        raise DataError("there is no image to validate with: every class needs five or more to hold one out, or pass --val DATA")


def _decode(examples: Sequence[Example], names: Sequence[str], size: int, file: Path) -> tuple[Split, list[Example], list[Skipped]]:
    with Bar("Decoding", len(examples)) as bar:
        canvases = decode_canvases(examples, size, file, threads=os.cpu_count() or 1, done=bar.advance)
    index = {name: number for number, name in enumerate(names)}
    targets = torch.tensor([index[str(example.label)] for example in canvases.examples], dtype=torch.int64)
    return Split(canvases.pixels, targets), canvases.examples, canvases.skipped


def _fingerprint(examples: Sequence[Example]) -> str:
    """Names the images of a run, by path and label."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.path}\0{example.label}\0".encode())
    return digest.hexdigest()


def evaluate_model(directory: Path, data: str, *, num_crops: int = 1) -> Metrics:
    """Scores a model directory on all labelled images of `data`, by label; raises UserError."""
    network, card = load_network(directory, best_device())
    examples = _labelled(open_dataset(data).part("all"))
    if unknown := sorted(set(class_names(examples)) - set(card.class_names)):
        raise DataError(f"{data} has classes that {directory} does not know: {', '.join(unknown[:5])}; pass images of its own classes")
    with TemporaryDirectory() as scratch:
        split, _, skipped = _decode(examples, card.class_names, card.image_size, Path(scratch, "canvases.u8"))
        if not len(split.targets):
            raise DataError(f"{data} has no readable labelled image; pass a folder of class folders, or a CSV (path,label)")
        for item in skipped:
            console.print(f"Skipped {item.path}: {item.reason}")
        return evaluate(network, split.canvases, split.targets, num_crops=num_crops)
