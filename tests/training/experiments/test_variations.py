"""Every variation is a recipe of its own that has a network."""

from training.experiments.variations import VARIATIONS
from training.learning.plan import architecture_of
from training.learning.recipe import paper
from training.network.alexnet import AlexNet


def test_every_variation_is_a_recipe_with_a_network() -> None:
    recipes = [
        paper().with_settings(["image_size=67", *variation.settings]) for variation in VARIATIONS
    ]
    assert len(set(recipes)) == len(VARIATIONS)
    for recipe in recipes:
        AlexNet(architecture_of(recipe, num_classes=3))


def test_a_variation_changes_only_its_own_settings_of_the_papers_recipe() -> None:
    baseline = paper().as_dict()
    for variation in VARIATIONS:
        recipe = paper().with_settings(variation.settings).as_dict()
        changed = {name for name, value in recipe.items() if value != baseline[name]}
        assert changed == {setting.partition("=")[0] for setting in variation.settings}
