"""The checkpoint: one file with everything that a run needs to continue."""

from pathlib import Path
from typing import Any

import torch

from training.errors import UserError
from training.files import replacing
from training.learning.recipe import Recipe, contrast

CHECKPOINT_FILE = "checkpoint.pt"
FREE_SETTINGS = ("learning_rate", "weight_decay", "label_smoothing", "precision", "compilation")
"""Settings that a resumed run may change.

These settings affect neither the shapes of the weights, nor the images, nor the length of the run.
"""


class TrainingError(UserError):
    """A run cannot start, continue or be resumed."""


class DivergenceError(TrainingError):
    """A loss or a weight became infinite or NaN."""


def write_checkpoint(
    file: Path, state: dict[str, Any], *, recipe: Recipe, fingerprint: str
) -> None:
    """Write the state of a run atomically. `state` contains tensors and plain values.

    `fingerprint` identifies the images and the initial weights. Raises OSError if the disk is full.
    """
    with replacing(file) as temporary, temporary.open("wb") as stream:
        try:
            torch.save({"recipe": recipe.as_dict(), "fingerprint": fingerprint, **state}, stream)
        except RuntimeError as error:
            # If the disk is full, torch raises an assertion of its own instead of the OSError.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def damaged(file: Path) -> TrainingError:
    """The error for a file that is not a complete checkpoint."""
    return TrainingError(
        f"{file} is damaged, or not a checkpoint of a run; remove it to train from the start"
    )


def read_checkpoint(file: Path, *, recipe: Recipe, fingerprint: str) -> dict[str, Any]:
    """Read the state of a run. Its tensors are on the CPU.

    Raises TrainingError if the file is damaged, or if it was made with another recipe, other images
    or other initial weights.
    """
    state = _load(file)
    if state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{file} was made from other images or other initial weights; "
            "pass the same DATA and --init, or remove the file to train from the start"
        )
    _check_recipe(file, state, recipe)
    return state


def check_checkpoint(file: Path, recipe: Recipe) -> None:
    """Raise TrainingError if the file is damaged or was made with another recipe.

    The check is fast, because the weights are memory-mapped and not read.
    """
    _check_recipe(file, _load(file, mmap=True), recipe)


def _load(file: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        dict(state["recipe"]), str(state["fingerprint"])
    except Exception as error:
        # torch.load raises a different exception for each way in which a file can be damaged.
        raise damaged(file) from error
    return state


def _check_recipe(file: Path, state: dict[str, Any], recipe: Recipe) -> None:
    # If the file is older than a setting, its run used the default of this setting.
    before, now = {**Recipe().as_dict(), **state["recipe"]}, recipe.as_dict()
    fixed = [name for name in now if name not in FREE_SETTINGS]
    if changed := [name for name in fixed if before[name] != now[name]]:
        raise TrainingError(
            f"{file} was made with {contrast(before, now, changed)}; "
            f"pass the values of {file}, or remove it to train from the start"
        )
