"""The checkpoint: one file with everything that a run needs to continue."""

from pathlib import Path
from typing import Any

import torch

from training.errors import UserError
from training.files import replacing
from training.learning.recipe import Recipe, contrast

CHECKPOINT_FILE = "checkpoint.pt"
FREE_SETTINGS = ("learning_rate", "weight_decay", "label_smoothing", "precision", "compilation")
"""Settings that a resumed run may change: they affect neither shapes, images nor length."""


class TrainingError(UserError):
    """A run that cannot start, continue or be resumed."""


class DivergenceError(TrainingError):
    """A loss or a weight that became infinite or NaN."""


def write_checkpoint(
    file: Path, state: dict[str, Any], *, recipe: Recipe, fingerprint: str
) -> None:
    """Write a state of tensors and plain values, atomically.

    `fingerprint` identifies the images and the initial weights. A full disk raises OSError.
    """
    with replacing(file) as temporary, temporary.open("wb") as stream:
        try:
            torch.save({"recipe": recipe.as_dict(), "fingerprint": fingerprint, **state}, stream)
        except RuntimeError as error:
            # torch hides the error of a full disk behind an assertion of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def damaged(file: Path) -> TrainingError:
    """The error for a file that does not hold what `write_checkpoint` writes."""
    return TrainingError(
        f"{file} is damaged, or not a checkpoint of a run; remove it to train from the start"
    )


def read_checkpoint(file: Path, *, recipe: Recipe, fingerprint: str) -> dict[str, Any]:
    """Read a state; its tensors are on the CPU.

    Raises TrainingError if the file is damaged, or belongs to another recipe or other images.
    """
    state = _load(file)
    if state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{file} was made from other images or other initial weights; "
            "pass the same DATA and --init, or remove it to train from the start"
        )
    _check_recipe(file, state, recipe)
    return state


def check_checkpoint(file: Path, recipe: Recipe) -> None:
    """Raise TrainingError if the file is damaged or belongs to another recipe.

    Maps the weights without reading them, so the check is cheap.
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
    # A setting that is newer than the file had its default value then.
    before, now = {**Recipe().as_dict(), **state["recipe"]}, recipe.as_dict()
    fixed = [name for name in now if name not in FREE_SETTINGS]
    if changed := [name for name in fixed if before[name] != now[name]]:
        raise TrainingError(
            f"{file} was made with {contrast(before, now, changed)}; "
            "pass the first values, or remove the file to train from the start"
        )
