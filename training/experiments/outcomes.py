"""The outcomes of an ablation. A run's result.json has its outcome, its recipe and its images.

A run's folder is named after its variation and its seed, for example tanh-seed0. Outcomes can be
compared only if they come from the same recipe and the same images. So reading any other outcome is
an error.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.experiments.variations import VARIATIONS, Variation
from training.files import write_atomically
from training.learning.checkpoint import TrainingError
from training.learning.recipe import Recipe, contrast
from training.learning.training_images import absolute_name
from training.network.model import CARD_FILE, ModelCard, read_card

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Outcome:
    """A finished run: its errors in per cent of the held-out images, or its failure."""

    variation: str
    seed: int
    top1_error: float | None
    top5_error: float | None
    epochs_to_quarter: int | None
    """Epochs until the training error was at most 25 %, None if it never was."""
    failure: str | None = None


@dataclass(frozen=True)
class Origin:
    """The recipe and the images of a run."""

    recipe: Recipe
    data: str
    """The names of the data sets. They are valid in any working directory."""
    fingerprint: str
    """A hash of the images' paths, labels and sizes."""

    def vary(self, variation: Variation, seed: int) -> "Origin":
        """This origin with a variation's settings and a seed.

        Raises RecipeError if a setting has no effect in this recipe.
        """
        recipe = self.recipe.with_settings([*variation.settings, f"seed={seed}"])
        return replace(self, recipe=recipe)


def run_folder(out: Path, variation: Variation, seed: int) -> Path:
    """The folder of a run in the directory of its ablation."""
    return out / f"{variation.name}-seed{seed}"


def write_outcome(outcome: Outcome, origin: Origin, folder: Path) -> None:
    """Write the result.json of a run."""
    content = {
        "recipe": origin.recipe.as_dict(),
        "data": origin.data,
        "fingerprint": origin.fingerprint,
        "outcome": vars(outcome),
    }
    write_atomically(folder / RESULT_FILE, json.dumps(content, indent=2).encode())


def read_outcomes(out: Path, baseline: Origin) -> list[Outcome]:
    """Read the outcomes of all finished runs, seed by seed in the order of VARIATIONS.

    Raises TrainingError if an outcome is damaged, or if its recipe or images are not those of
    `baseline`.
    """
    outcomes: dict[tuple[int, int], Outcome] = {}
    for position, variation in enumerate(VARIATIONS):
        for file in out.glob(f"{variation.name}-seed*/{RESULT_FILE}"):
            seed = file.parent.name.removeprefix(f"{variation.name}-seed")
            if seed.isdecimal():
                origin = baseline.vary(variation, int(seed))
                outcomes[int(seed), position] = _read_outcome(file, origin)
    return [outcomes[key] for key in sorted(outcomes)]


def read_finished_card(folder: Path, origin: Origin) -> ModelCard:
    """Read the card of a run's complete model; raises TrainingError if it is not from `origin`.

    A card has no fingerprint, so the images are compared by name only.
    """
    card = read_card(folder)
    data = data_name(card.data["name"], card.data.get("validation"))
    # The card has numbers in place of the recipe's automatic settings.
    automatic = {name: value for name, value in origin.recipe.as_dict().items() if value == "auto"}
    made_with = {**card.recipe, **automatic}
    _check_origin(folder / CARD_FILE, made_with, data, origin, is_same_data=data == origin.data)
    return card


def data_name(data: str, validation: str | None) -> str:
    """The names of a run's data sets. They are valid in any working directory."""
    names = [data, validation] if validation else [data]
    return " and ".join(map(absolute_name, names))


def _read_outcome(file: Path, origin: Origin) -> Outcome:
    try:
        content = json.loads(file.read_text("utf-8"))
        outcome = Outcome(**content["outcome"])
        made_with, data = dict(content["recipe"]), content["data"]
        is_same_data = content["fingerprint"] == origin.fingerprint
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{file} is damaged, or comes from an earlier version ({error}); "
            "to run it again, remove its folder"
        ) from error
    _check_origin(file, made_with, data, origin, is_same_data=is_same_data)
    return outcome


def _check_origin(
    file: Path, made_with: Mapping[str, Any], data: str, origin: Origin, *, is_same_data: bool
) -> None:
    """Raise TrainingError unless `file` was made with the recipe and images of `origin`."""
    if not is_same_data:
        raise TrainingError(
            f"{file} was made from the images of {data} at that time, "
            "but the images are different now; pass the same images, or another --out"
        )
    # A setting that is newer than the file had its default value.
    made_with, expected = {**Recipe().as_dict(), **made_with}, origin.recipe.as_dict()
    if changed := [name for name in expected if made_with[name] != expected[name]]:
        raise TrainingError(
            f"{file} was made with {contrast(made_with, expected, changed)}; "
            "pass the same settings, or another --out"
        )
