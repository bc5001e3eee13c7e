"""The search that the default settings are compared with."""

from typing import Any

from benchmarks.small_collections import CHANGES, changed, default_recipe, search
from training.learning.recipe import Recipe


def test_the_two_best_changes_of_the_first_round_are_trained_in_full_alone_and_together() -> None:
    defaults = default_recipe(300, 96)
    asked: dict[str, Recipe] = {}

    def run(name: str, recipe: Recipe) -> dict[str, Any]:
        asked[name] = recipe
        is_full = recipe.epochs == defaults.epochs
        top1 = 0.5 + 0.1 * (recipe.mixup == 0) + 0.05 * (recipe.weight_decay > 0.001)
        return {"top1": top1 - (0 if is_full else 0.2)}

    figures = search(defaults, run)
    both = "no mixing, 4 times the weight decay"
    names = ["defaults", "no mixing", "4 times the weight decay", both]
    assert list(figures["full"]) == names
    assert {asked[name].epochs for name in names} == {defaults.epochs}
    assert {asked[f"{name}, first round"].epochs for name in CHANGES} == {
        round(defaults.epochs / 4)
    }
    assert (asked[both].mixup, asked[both].weight_decay) == (0, 4 * defaults.weight_decay)
    assert figures["best"] == both
    assert figures["points_below_the_best"] == 15


def test_without_time_for_all_runs_no_best_recipe_is_named() -> None:
    defaults = default_recipe(300, 96)
    figures = search(defaults, lambda name, recipe: {"top1": 0.5} if "round" in name else None)
    assert "best" not in figures
    assert len(figures["first_round"]) == len(CHANGES)
    none = search(defaults, lambda name, recipe: None)
    assert none["first_round"] == {}


def test_a_change_keeps_the_kind_of_a_setting() -> None:
    recipe = changed(default_recipe(300, 96), "batches twice as large", "twice the rate")
    assert (recipe.batch_size, type(recipe.batch_size)) == (64, int)
    assert recipe.learning_rate == 3 * default_recipe(300, 96).learning_rate
    assert recipe.image_size == 96
