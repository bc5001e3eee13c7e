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


def check_checkpoint(file: Path, recipe: Recipe, *, num_listed: int) -> None:
    """Raise TrainingError if the file is damaged or was made with another recipe.

    Parts of a recipe follow from `num_listed`, the number of training images in the data set. If
    this number is the reason, the error says so. The check is fast, because the weights are
    memory-mapped and not read.
    """
    state = _load(file, mmap=True)
    before = state.get("num_listed", num_listed)  # older checkpoints do not have it
    if before != num_listed and _changed_settings(state, recipe):
        raise TrainingError(
            f"{file} was made from {before:,} training images, but there are {num_listed:,} now; "
            f"pass the same images, or remove {file} to train from the start"
        )
    _check_recipe(file, state, recipe)


def read_probe_top1(file: Path) -> float | None:
    """Top-1 of the probe that the run of a checkpoint started from, from 0 to 1.

    None if its last layer was not a probe, or if the checkpoint is older than this figure. The
    weights are not read. Raises TrainingError if the file is damaged.
    """
    top1 = _load(file, mmap=True).get("probe_top1")
    return None if top1 is None else float(top1)


def _load(file: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        dict(state["recipe"]), str(state["fingerprint"])
    except Exception as error:
        # torch.load raises a different exception for each way in which a file can be damaged.
        raise damaged(file) from error
    return state


def _check_recipe(file: Path, state: dict[str, Any], recipe: Recipe) -> None:
    if changed := _changed_settings(state, recipe):
        settings = contrast(_recipe_before(state), recipe.as_dict(), changed)
        raise TrainingError(
            f"{file} was made with {settings}; "
            f"pass the values of {file}, or remove it to train from the start"
        )


def _changed_settings(state: dict[str, Any], recipe: Recipe) -> list[str]:
    """The settings that differ from those of the checkpoint, but must not."""
    before, now = _recipe_before(state), recipe.as_dict()
    return [name for name in now if name not in FREE_SETTINGS and before[name] != now[name]]


def _recipe_before(state: dict[str, Any]) -> dict[str, Any]:
    # If the file is older than a setting, its run used the default of this setting.
    return {**Recipe().as_dict(), **state["recipe"]}
