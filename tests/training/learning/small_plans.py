"""Plans, runs and steps on a few coloured canvases, and runs that are interrupted in a step."""

import dataclasses
import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.learning.augment import Draws
from training.learning.checkpoint import CHECKPOINT_FILE, TrainingError
from training.learning.distributed import Workers
from training.learning.log import LOG_FILE
from training.learning.plan import Plan, Split, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.run import Run
from training.learning.step import Batch, train_step
from training.learning.trainer import train_network
from training.network.alexnet import AlexNet

COLOURS = ((30, 60, 220), (30, 180, 60), (220, 40, 30))
RECIPE = dataclasses.replace(
    modern(),
    image_size=67,
    epochs=3,
    batch_size=8,
    learning_rate=0.002,
    warmup_epochs=0.5,
    precision="float32",
    seed=3,
    max_gradient_norm=0.0,
    dropout=0.5,
    colour_noise=0.1,
    mixup=0.2,
    cutmix=0.2,
)
"""A recipe with everything that is random in a step."""


def colours(num_images: int, seed: int) -> Split:
    """Canvases of one noisy colour each, in turn. The red of a corner is the image's position."""
    targets = np.arange(num_images) % len(COLOURS)
    noise = np.random.default_rng(seed).normal(0, 12, (num_images, 77, 77, 3))
    canvases = np.clip(np.array(COLOURS)[targets][:, None, None] + noise, 0, 255).astype(np.uint8)
    canvases[:, 0, 0, 0] = np.arange(num_images)
    return Split(canvases, torch.from_numpy(targets))


TRAIN, HELD_OUT = colours(24, seed=0), colours(6, seed=1)


def make_plan(directory: Path, recipe: Recipe = RECIPE, **others: Any) -> Plan:
    fields: dict[str, Any] = {"train": TRAIN, "held_out": HELD_OUT, "fingerprint": "colours"}
    return Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, len(COLOURS)),
        directory=directory,
        **fields | others,
    )


def train(
    directory: Path, recipe: Recipe = RECIPE, *, resume: bool = False, **others: Any
) -> AlexNet:
    return train_network(make_plan(directory, recipe, **others), Workers(), resume=resume)


def begin(recipe: Recipe = RECIPE, directory: Path = Path(), **others: Any) -> Run:
    """A run before its first step, in training mode."""
    run = Run.begin(make_plan(directory, recipe, **others), Workers())
    run.network.train()
    return run


def make_batch(run: Run, number: int = 0, **others: Any) -> Batch:
    """The images of a step, if an epoch kept their order."""
    size = run.plan.recipe.batch_size
    chosen = slice(number * size, (number + 1) * size)
    fields: dict[str, Any] = {
        "canvases": torch.from_numpy(TRAIN.canvases[chosen]),
        "targets": TRAIN.targets[chosen],
        "draws": Draws.of(run.plan.recipe, size, 0, number),
        "dropout_seed": number,
        "weight": 1 / size,
        "num_images": size,
    }
    return Batch(**fields | others)


def read_log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / LOG_FILE).read_text().splitlines()]


def read_position(directory: Path) -> tuple[int, int]:
    """The number of finished epochs in the checkpoint, and of steps in the current epoch."""
    state = torch.load(directory / CHECKPOINT_FILE, weights_only=True)
    return len(state["log"]), state["position"]["step"]


def refusal(action: Callable[[], object]) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(TrainingError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def call_in_step(number: int, action: Callable[[Run], object]) -> pytest.MonkeyPatch:
    """Call `action` at the end of the step `number`, counted from 1, until the patch is undone."""
    numbers = itertools.count(1)

    def step_and_act(run: Run, batch: Batch, rate: float) -> Tensor:
        figures = train_step(run, batch, rate)
        if next(numbers) == number:
            action(run)
        return figures

    patch = pytest.MonkeyPatch()
    patch.setattr("training.learning.epoch.train_step", step_and_act)
    return patch


def interrupt_training(
    number: int, train: Callable[[], object], action: Callable[[Run], object] | None = None
) -> None:
    """A training that `action` interrupts in its step `number`; without one, Ctrl-C does."""
    patch = call_in_step(number, action or press_ctrl_c)
    try:
        with pytest.raises(KeyboardInterrupt):
            train()
    finally:
        patch.undo()


def press_ctrl_c(_: Run) -> None:
    signal.raise_signal(signal.SIGINT)


def press_ctrl_c_twice(_: Run) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
