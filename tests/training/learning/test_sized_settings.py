"""The settings that follow from the number of training images."""

from dataclasses import replace
from typing import Any

import pytest

from training.learning.recipe import modern
from training.learning.sized_settings import NUM_LARGE, sized_settings

SIZES = (2, 30, 100, 300, 1000, 3000, 8999, 9000, 10_000, 1_000_000)


def sized(num_images: int, *, has_new_output: bool = False, **fixed: Any) -> dict[str, Any]:
    recipe = replace(modern(), **fixed)
    return sized_settings(recipe, num_images, fixed, has_new_output=has_new_output)


@pytest.mark.parametrize("has_new_output", [False, True])
def test_every_number_of_images_has_a_valid_recipe(has_new_output: bool) -> None:
    for num_images in SIZES:
        recipe = replace(modern(), **sized(num_images, has_new_output=has_new_output))
        assert recipe.batch_size <= modern().batch_size
        assert recipe.warmup_epochs < recipe.epochs / 2


def test_fewer_images_are_trained_on_for_more_epochs_but_not_for_more_steps() -> None:
    recipes = {size: replace(modern(), **sized(size)) for size in SIZES}
    epochs = [recipe.epochs for recipe in recipes.values()]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[-1] == modern().epochs
    steps = [size * recipe.epochs / recipe.batch_size for size, recipe in recipes.items()]
    assert steps[2] < steps[-1]
    sides = [recipe.image_size for recipe in recipes.values()]
    assert sides == sorted(sides)
    rates = [recipe.learning_rate for recipe in recipes.values()]
    assert rates == sorted(rates)


def test_a_large_collection_is_trained_on_with_the_recipe_as_it_is() -> None:
    for size in (NUM_LARGE, 1_000_000):
        assert sized(size) == {"class_balance": 0.5}


def test_a_network_without_batch_norm_learns_at_a_tenth_of_the_rate() -> None:
    for size in (300, 100_000):
        with_norm = replace(modern(), **sized(size)).learning_rate
        without_norm = sized(size, normalization="none")["learning_rate"]
        assert without_norm == pytest.approx(with_norm / 10)


def test_the_last_layer_of_an_old_network_starts_as_a_probe() -> None:
    for size in SIZES:
        assert sized(size, has_new_output=True) == sized(size) | {"last_layer": "probe"}


def test_what_the_user_fixed_stays_and_the_other_settings_follow_it() -> None:
    fixed = sized(300, epochs=40, batch_size=8)
    assert not {"epochs", "batch_size"} & fixed.keys()
    assert fixed["warmup_epochs"] == 2.0
    assert fixed["learning_rate"] == pytest.approx(modern().learning_rate / 4)
    everything = {name: getattr(modern(), name) for name in sized(300)}
    assert sized(300, **everything) == {}


def test_a_larger_image_size_that_the_user_fixed_takes_fewer_epochs() -> None:
    assert sized(300, image_size=224)["epochs"] < sized(300)["epochs"]
    assert sized(300, image_size=67)["epochs"] == sized(300)["epochs"]


def test_a_schedule_without_a_warm_up_gets_none() -> None:
    assert "warmup_epochs" not in sized(300, schedule="plateau")
