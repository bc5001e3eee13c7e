"""The work of `lookalike train`: turn a request into a finished model directory."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from training.data.datasets import open_dataset
from training.data.skipped import Skipped
from training.devices import device_name
from training.learning.checkpoint import CHECKPOINT_FILE, TrainingError, check_checkpoint
from training.learning.distributed import Workers, join_workers
from training.learning.evaluation import evaluate
from training.learning.int8 import quantize_trained
from training.learning.last_layer import first_weights
from training.learning.log import check_tensorboard
from training.learning.plan import Plan, architecture_of, executed_recipe
from training.learning.recipe import Recipe, RecipeError
from training.learning.recipe_choice import ChosenRecipe, choose_recipe
from training.learning.request import InitialModel, Request, load_initial_model
from training.learning.trainer import train_network
from training.learning.training_images import (
    DecodedImages,
    Selection,
    absolute_name,
    decode_selection,
    select_examples,
)
from training.network.alexnet import AlexNet, Architecture
from training.network.export import save_model
from training.network.model import CARD_FILE, ModelCard, read_card
from training.network.pretrained import hint_at_scratch
from training.network.towers import check_towers
from training.progress import console

CACHE_FOLDER = "canvases"


@dataclass(frozen=True)
class Result:
    """A finished model, and the files that were skipped."""

    card: ModelCard
    skipped: list[Skipped]


def train(request: Request) -> Result:
    """Train a network and write its model directory; raises UserError.

    Unreadable files are skipped and listed in skipped.csv. Under torchrun, every process trains on
    a part of each batch, and only the first process writes. All processes return the same result.
    """
    with join_workers() as workers:
        _check_start(request, workers)
        dataset, checkpoint = open_dataset(request.data), _checkpoint_to_resume(request)
        # To continue a run, the weights that it started from are needed.
        with hint_at_scratch(None if checkpoint else request.init):
            initial = load_initial_model(request.init)
        selection = select_examples(request, dataset)
        chosen = choose_recipe(request, dataset, initial, selection)
        recipe = chosen.recipe
        architecture = _choose_architecture(recipe, initial, len(selection.class_names))
        _check_before_decoding(request, recipe, architecture)
        if checkpoint:
            check_checkpoint(checkpoint, recipe, num_listed=len(selection.train))
        if workers.is_first:
            request.out.mkdir(parents=True, exist_ok=True)
            _print_start(selection, chosen)
        cache = request.cache or request.out / CACHE_FOLDER
        images = decode_selection(request, selection, recipe.image_size, cache, workers)
        first = first_weights(
            initial, selection.class_names, recipe, images, workers, checkpoint=checkpoint
        )
        plan = Plan(
            recipe=recipe,
            architecture=architecture,
            train=images.train,
            held_out=images.held_out,
            directory=request.out,
            fingerprint=images.fingerprint + (initial.id if initial else ""),
            initial=first.tensors,
            old_layers=first.old_layers,
            num_listed=len(selection.train),
            probe_top1=first.probe_top1,
            tower_devices=request.tower_devices,
            has_tensorboard=request.has_tensorboard,
        )
        network = train_network(plan, workers, resume=request.resume)
        if workers.is_first:
            data = _describe(request, images, initial) | {"sized_settings": chosen.sized}
            _save(network, selection.class_names, plan, workers, data)
            _finish(request, plan, cache)
        workers.wait()
        return Result(read_card(request.out), images.skipped)


def _check_start(request: Request, workers: Workers) -> None:
    """Raise UserError if the run cannot use `request.out`, or lacks the package TensorBoard.

    Raise it also if the request has tower devices and there are several processes.
    """
    if (request.out / CARD_FILE).exists():
        raise TrainingError(
            f"{request.out} already holds a model; "
            "pass another --out, or remove that directory first"
        )
    if request.out.exists() and not request.out.is_dir():
        raise TrainingError(f"{request.out} is a file; --out must name a directory")
    if (request.out / CHECKPOINT_FILE).exists() and not request.resume:
        raise TrainingError(
            f"{request.out} holds an unfinished run; "
            "pass --resume to continue it, or remove that directory first"
        )
    if request.tower_devices and workers.count > 1:
        raise TrainingError(
            "--tower-devices uses both devices in one process, "
            f"but torchrun started {workers.count}; start without torchrun"
        )
    if request.has_tensorboard:
        check_tensorboard()


def _checkpoint_to_resume(request: Request) -> Path | None:
    checkpoint = request.out / CHECKPOINT_FILE
    return checkpoint if request.resume and checkpoint.is_file() else None


def _choose_architecture(
    recipe: Recipe, initial: InitialModel | None, num_classes: int
) -> Architecture:
    if initial:
        return initial.architecture_for(num_classes, recipe.dropout)
    return architecture_of(recipe, num_classes)


def _check_before_decoding(request: Request, recipe: Recipe, architecture: Architecture) -> None:
    """Raise UserError for mistakes that would otherwise be reported only after the decoding."""
    if request.tower_devices:
        check_towers(architecture, request.tower_devices)
        if recipe.compilation == "on":
            raise RecipeError(
                "compilation=on does not work with --tower-devices; leave out one of the two"
            )


def _print_start(selection: Selection, chosen: ChosenRecipe) -> None:
    recipe, num_images = chosen.recipe, len(selection.train)
    console.print(
        f"Training on {num_images:,} images of {len(selection.class_names)} classes, "
        f"{len(selection.held_out):,} held out; "
        f"{recipe.image_size} pixels, {recipe.epochs} epochs"
    )
    if chosen.sized:
        values = ", ".join(f"{name}={value}" for name, value in chosen.sized.items())
        console.print(f"Settings for {num_images:,} images: {values}")


def _finish(request: Request, plan: Plan, cache: Path) -> None:
    """Write the network in int8, and remove the files that only an unfinished run needs."""
    plan.checkpoint_file.unlink(missing_ok=True)
    try:
        if request.writes_int8:
            quantize_trained(plan, absolute_name(request.data))
    finally:  # after Ctrl-C too, because the model is complete
        if request.cache is None:
            shutil.rmtree(cache)


def _describe(
    request: Request, images: DecodedImages, initial: InitialModel | None
) -> dict[str, object]:
    """The facts about the data for model.json."""
    return {
        "name": absolute_name(request.data),
        "num_train": len(images.train.targets),
        "num_held_out": len(images.held_out.targets),
        "num_skipped": len(images.skipped),
        "validation": absolute_name(request.validation) if request.validation else None,
        "init": initial.id if initial else None,
    }


def _save(
    network: AlexNet,
    class_names: tuple[str, ...],
    plan: Plan,
    workers: Workers,
    data: dict[str, object],
) -> None:
    """Measure the network on the held-out images in float32, and write the model directory.

    `data` are the facts about the data for model.json. The facts about this run are added.
    """
    scores = evaluate(network, plan.held_out.canvases, plan.held_out.targets)
    run = {
        "probe_top1": plan.probe_top1,
        "device": device_name(workers.device),
        "num_processes": workers.count,
    }
    save_model(
        network,
        plan.directory,
        class_names=class_names,
        recipe=executed_recipe(plan, workers).as_dict(),
        metrics=scores.as_dict(),
        data=data | run,
    )
