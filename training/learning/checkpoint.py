"""A run on disk: everything that it takes to go on as if nothing had happened, in one file that is replaced as a whole."""

from pathlib import Path
from typing import Any

import torch

from training.errors import UserError
from training.files import replacing
from training.learning.recipe import Recipe, contrast

CHECKPOINT_FILE = "checkpoint.pt"
FREE_SETTINGS = ("learning_rate", "weight_decay", "label_smoothing", "precision", "compilation")
"""What changes neither the shapes, the images nor the length of a run may be corrected half-way."""


class TrainingError(UserError):
    """A run that cannot start, go on or be resumed."""


class DivergenceError(TrainingError):
    """A loss that is not finite."""


def write_checkpoint(
    file: Path, state: dict[str, Any], *, recipe: Recipe, fingerprint: str
) -> None:
    """Writes tensors and plain values; `fingerprint` names the images and whatever else a run must keep."""
    with replacing(file) as temporary, temporary.open("wb") as stream:
        try:
            torch.save({"recipe": recipe.as_dict(), "fingerprint": fingerprint, **state}, stream)
        except RuntimeError as error:
            if isinstance(
                error.__context__, OSError
            ):  # torch hides a full disk behind an assertion of its own
                raise error.__context__ from error
            raise


def damaged(file: Path) -> TrainingError:
    """For a file that does not hold what a run writes."""
    return TrainingError(
        f"{file} is damaged, or no checkpoint of a run; remove it to train from the start"
    )


def read_checkpoint(file: Path, *, recipe: Recipe, fingerprint: str) -> dict[str, Any]:
    """The state, on the CPU; raises TrainingError where the file is damaged or of another run than `recipe` on these images."""
    state = _load(file)
    if state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{file} was made from other images or on other weights than these; pass the same DATA and --init, or remove it to start anew"
        )
    _check_recipe(file, state, recipe)
    return state


def check_checkpoint(file: Path, recipe: Recipe) -> None:
    """Raises TrainingError where the file is damaged or of another recipe; reads no weights, so that it costs nothing to ask first."""
    _check_recipe(file, _load(file, mmap=True), recipe)


def _load(file: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        dict(state["recipe"]), str(state["fingerprint"])
    except (
        Exception
    ) as error:  # torch.load raises a different error for each way a file can be damaged
        raise damaged(file) from error
    return state


def _check_recipe(file: Path, state: dict[str, Any], recipe: Recipe) -> None:
    made_with = {
        **Recipe().as_dict(),
        **state["recipe"],
    }  # a setting that is newer than the file had its default
    asked = recipe.as_dict()
    if changed := [
        name for name in asked if name not in FREE_SETTINGS and made_with[name] != asked[name]
    ]:
        raise TrainingError(
            f"{file} was made with {contrast(made_with, asked, changed)}; pass the first, or remove the file to train from the start"
        )
