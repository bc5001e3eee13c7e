"""The recipe of a run. It follows from the request, the images and the initial model.

Later sources override earlier ones: the named recipe, what the data set and the initial model need,
what suits the number of images (recipe `modern` only), and what the user asks for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from training.data.datasets import Dataset, open_dataset
from training.learning.recipe import RECIPES, Recipe, RecipeError, contrast
from training.learning.request import InitialModel, Request, load_initial_model
from training.learning.sized_settings import sized_settings
from training.learning.training_images import select_examples

FINE_TUNING_SETTINGS = ("last_layer", "old_layers_rate", "frozen_epochs")
"""Settings that have no effect on a run with random initial weights."""


@dataclass(frozen=True)
class ChosenRecipe:
    """The recipe of a run, and the settings that follow from the number of its images."""

    recipe: Recipe
    sized: Mapping[str, Any]
    """The settings by name. They are part of `recipe`."""


def requested_recipe(request: Request) -> Recipe:
    """The recipe that a run of this request will follow; raises UserError."""
    dataset = open_dataset(request.data)
    initial = load_initial_model(request.init)
    num_images = len(select_examples(request, dataset).train)
    return choose_recipe(request, dataset, initial, num_images).recipe


def choose_recipe(
    request: Request, dataset: Dataset, initial: InitialModel | None, num_images: int
) -> ChosenRecipe:
    """The recipe of a request, with the settings that the data and the initial model need.

    `num_images` is the number of training images. Raises RecipeError for a setting that is unknown,
    out of range, without effect, or in conflict with the model.
    """
    shapes = initial.shapes if initial else {}
    defaults = {**dataset.recipe_defaults, **shapes}
    recipe = apply_settings(request, defaults)
    if initial is None:
        _check_from_scratch(request)
    elif differing := [name for name in shapes if getattr(recipe, name) != shapes[name]]:
        raise RecipeError(
            f"{initial.name} has {contrast(shapes, recipe.as_dict(), differing)}; "
            "leave these settings out, or train without --init"
        )
    sized: Mapping[str, Any] = {}
    if request.recipe == "modern":
        fixed = {*defaults, *asked_settings(request)}
        sized = sized_settings(recipe, num_images, fixed, is_fine_tuned=initial is not None)
    return ChosenRecipe(apply_settings(request, {**defaults, **sized}), sized)


def apply_settings(request: Request, defaults: Mapping[str, Any]) -> Recipe:
    """The named recipe, overridden by `defaults`, and then by the request's own settings.

    Raises RecipeError.
    """
    if request.recipe not in RECIPES:
        raise RecipeError(f"the recipe must be one of {', '.join(RECIPES)}; got {request.recipe}")
    recipe = replace(RECIPES[request.recipe](), **defaults)
    if request.epochs is not None:
        recipe = replace(recipe, epochs=request.epochs)
    if request.image_size is not None:
        recipe = replace(recipe, image_size=request.image_size)
    return recipe.with_settings(request.settings)


def asked_settings(request: Request) -> set[str]:
    """The names of the settings that the user gave a value."""
    names = {setting.partition("=")[0] for setting in request.settings}
    options = {"epochs": request.epochs, "image_size": request.image_size}
    return names | {name for name, value in options.items() if value is not None}


def _check_from_scratch(request: Request) -> None:
    """Raise RecipeError if a setting needs --init."""
    if useless := [name for name in FINE_TUNING_SETTINGS if name in asked_settings(request)]:
        raise RecipeError(
            f"{', '.join(useless)} has no effect without --init; pass --init too, or leave it out"
        )
