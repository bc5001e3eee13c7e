"""Write and read the outcomes of an ablation's runs.

A run's folder is named after its variation and its seed, for example tanh-seed0. The result.json in
this folder contains the outcome, the recipe, and the name and a hash of the images. Outcomes can be
compared only if they come from the same recipe and the same images. So an outcome of another recipe
or of other images is refused.
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
    """The errors of a finished run on the held-out images, in per cent, or its failure."""

    variation: str
    seed: int
    top1_error: float | None
    top5_error: float | None
    epochs_to_quarter: int | None
    """Number of epochs until the training error was at most 25 %. None if no epoch reached 25 %."""
    failure: str | None = None


@dataclass(frozen=True)
class Origin:
    """The recipe and the images of a run."""

    recipe: Recipe
    data: str
    """The names of the data sets. Paths are absolute."""
    fingerprint: str
    """A hash of the images' paths, labels and sizes."""

    def vary(self, variation: Variation, seed: int) -> "Origin":
        """A copy of this origin. Its recipe has the variation's settings and the seed.

        Raises RecipeError if a setting has no effect in the recipe.
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
    """Read the outcomes of all finished runs, sorted by seed and then by the order of VARIATIONS.

    Raises TrainingError if an outcome is damaged, or if its recipe or its images do not match
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
    """Read the card of a run's complete model.

    Raises TrainingError if the model was trained with another recipe or on other images than those
    of `origin`. A card has no fingerprint, so only the names of the data sets are compared.
    """
    card = read_card(folder)
    data = data_name(card.data["name"], card.data.get("validation"))
    # If a setting of the recipe is `auto`, the card has the value that was used instead.
    automatic = {name: value for name, value in origin.recipe.as_dict().items() if value == "auto"}
    made_with = {**card.recipe, **automatic}
    _check_origin(folder / CARD_FILE, made_with, data, origin, is_same_data=data == origin.data)
    return card


def data_name(data: str, validation: str | None) -> str:
    """The names of a run's data sets as one text. Paths are absolute."""
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
    # If a setting is newer than the file, the run used the default value of this setting.
    made_with, expected = {**Recipe().as_dict(), **made_with}, origin.recipe.as_dict()
    if changed := [name for name in expected if made_with[name] != expected[name]]:
        raise TrainingError(
            f"{file} was made with {contrast(made_with, expected, changed)}; "
            "pass the same settings, or another --out"
        )
