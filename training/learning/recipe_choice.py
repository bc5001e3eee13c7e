"""The recipe of a run. It follows from the request, the images and the initial model.

Later sources override earlier ones: the named recipe, what suits the number of images (recipe
`modern` only), what the data set and the initial model need, and what the user asks for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from training.data.datasets import Dataset, open_dataset
from training.learning.recipe import RECIPES, Recipe, RecipeError, contrast
from training.learning.request import InitialModel, Request, load_initial_model
from training.learning.sized_settings import sized_settings
from training.learning.training_images import Selection, select_examples

LAST_LAYER_SETTINGS = ("last_layer", "frozen_epochs")
"""Settings that have no effect unless a run from another network has a new last layer."""
FINE_TUNING_SETTINGS = (*LAST_LAYER_SETTINGS, "old_layers_rate")
"""Settings that have no effect on a run with random initial weights."""


@dataclass(frozen=True)
class ChosenRecipe:
    """The recipe of a run, and the settings that follow from the number of its images."""

    recipe: Recipe
    sized: Mapping[str, Any]
    """The settings by name. They are part of `recipe`."""


def resolve(request: Request) -> tuple[ChosenRecipe, Selection]:
    """The recipe that a run of this request will follow, and its images; raises UserError.

    The images are listed, but not decoded.
    """
    dataset = open_dataset(request.data)
    selection = select_examples(request, dataset)
    initial = load_initial_model(request.init)
    return choose_recipe(request, dataset, initial, selection), selection


def with_sized_settings(request: Request, chosen: ChosenRecipe) -> Request:
    """The request with its sized settings as settings that the user asked for.

    So they stay the same if other settings change. The recipe of the request does not change.
    """
    settings = [f"{name}={value}" for name, value in chosen.sized.items()]
    return replace(request, settings=(*settings, *request.settings))


def choose_recipe(
    request: Request, dataset: Dataset, initial: InitialModel | None, selection: Selection
) -> ChosenRecipe:
    """The recipe of a request, with the settings that the data and the initial model need.

    Raises RecipeError for a setting that is unknown, out of range, without effect, or in conflict
    with the model.
    """
    shapes = initial.shapes if initial else {}
    defaults = {**dataset.recipe_defaults, **shapes}
    recipe = apply_settings(request, defaults)
    has_new_output = initial is not None and initial.class_names != selection.class_names
    _check_effect(request, initial, has_new_output=has_new_output)
    if initial and (
        differing := [name for name in shapes if getattr(recipe, name) != shapes[name]]
    ):
        raise RecipeError(
            f"{initial.name} has {contrast(shapes, recipe.as_dict(), differing)}; "
            "leave these settings out, or train without --init"
        )
    sized: Mapping[str, Any] = {}
    if request.recipe == "modern":
        # The rate of the data set suits a network with batch norm, so it can be lowered.
        fixed = ({*defaults} - {"learning_rate"}) | asked_settings(request)
        sized = sized_settings(recipe, len(selection.train), fixed, has_new_output=has_new_output)
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


def _check_effect(request: Request, initial: InitialModel | None, *, has_new_output: bool) -> None:
    """Raise RecipeError if the user gave a setting that has no effect with this initial model."""
    asked = asked_settings(request)
    if initial is None and (useless := [name for name in FINE_TUNING_SETTINGS if name in asked]):
        raise RecipeError(
            f"{', '.join(useless)} has no effect without --init; pass --init too, or leave it out"
        )
    if not has_new_output and (useless := [name for name in LAST_LAYER_SETTINGS if name in asked]):
        raise RecipeError(
            f"{', '.join(useless)} has no effect, because the images have the classes of "
            f"{request.init}, and its last layer is kept; leave it out"
        )
