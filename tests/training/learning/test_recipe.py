"""The settings of a run: the papers' values, the ranges, and the answers to mistakes."""

import ast
import dataclasses
import inspect
import json
from itertools import pairwise
from typing import Any, get_type_hints

import pytest

from training.learning.recipe import RECIPES, Recipe, RecipeError, contrast, modern, paper


def refusal(*settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        paper().with_settings(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    expected = {
        "layout": "paper",
        "normalization": "response",
        "dropout": 0.5,
        "image_size": 224,
        "initialization": "paper",
        "mean": "image",
        "crop": "random",
        "flip": True,
        "batch_size": 128,
        "epochs": 90,
        "learning_rate": 0.01,
        "schedule": "plateau",
        "momentum": 0.9,
        "rate_in_velocity": True,
        "nesterov": False,
        "weight_decay": 0.0005,
        "decay_biases": True,
        "label_smoothing": 0.0,
        "colour_noise": 0.1,
        "mixup": 0.0,
        "cutmix": 0.0,
        "has_sixth_convolution": False,
        "precision": "float32",
    }
    settings = paper().as_dict()
    assert {name: settings[name] for name in expected} == expected


def test_every_setting_has_a_description_and_every_number_a_range() -> None:
    (body,) = (
        node.body
        for node in ast.parse(inspect.getsource(Recipe)).body
        if isinstance(node, ast.ClassDef)
    )
    described = [
        field.target.id
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    ]
    assert described == [field.name for field in dataclasses.fields(Recipe)]
    for name, hint in get_type_hints(Recipe, include_extras=True).items():
        assert hint not in (int, float), name


@pytest.mark.parametrize(
    ("setting", "limits", "got"),
    [
        ("num_towers=3", "between 1 and 2", "got 3"),
        ("without_convolution=6", "between 0 and 5", "got 6"),
        ("dropout=1", "between 0 and 0.95", "got 1.0"),
        ("image_size=66", "between 67 and 1024", "got 66"),
        ("image_size=1025", "between 67 and 1024", "got 1025"),
        ("min_crop_area=0", "between 0.01 and 1", "got 0.0"),
        ("colour_noise=-0.1", "between 0 and 10", "got -0.1"),
        ("colour_noise_until=1.5", "between 0 and 1", "got 1.5"),
        ("mixup=101", "between 0 and 100", "got 101.0"),
        ("mixup=nan", "between 0 and 100", "got nan"),
        ("cutmix=-1", "between 0 and 100", "got -1.0"),
        ("batch_size=0", "between 1 and 65536", "got 0"),
        ("epochs=0", "between 1 and 10000", "got 0"),
        ("epochs=-3", "between 1 and 10000", "got -3"),
        ("learning_rate=0", "between 1e-08 and 100", "got 0.0"),
        ("learning_rate=nan", "between 1e-08 and 100", "got nan"),
        ("learning_rate=inf", "between 1e-08 and 100", "got inf"),
        ("patience_epochs=0", "between 1 and 10000", "got 0"),
        ("warmup_epochs=-0.5", "between 0 and 10000", "got -0.5"),
        ("momentum=1", "between 0 and 0.9999", "got 1.0"),
        ("weight_decay=-1", "between 0 and 1", "got -1.0"),
        ("label_smoothing=1", "between 0 and 0.99", "got 1.0"),
        ("seed=2147483648", "between 0 and 2147483647", "got 2147483648"),
        ("seed=" + "9" * 400, "between 0 and 2147483647", "got " + "9" * 400),
    ],
)
def test_a_value_out_of_range_is_answered_with_its_name_range_and_value(
    setting: str, limits: str, got: str
) -> None:
    assert refusal(setting) == f"{setting.partition('=')[0]} must lie {limits}; {got}"


@pytest.mark.parametrize(
    "setting",
    [
        "dropout=0",
        "image_size=67",
        "learning_rate=100",
        "momentum=0",
        "seed=2147483647",
        "batch_size=1",
        "colour_noise=0",
        "colour_noise=10",
        "colour_noise_until=0",
        "colour_noise_until=1",
        "mixup=100",
        "cutmix=0",
    ],
)
def test_the_limits_themselves_are_allowed(setting: str) -> None:
    name, _, value = setting.partition("=")
    assert getattr(paper().with_settings([setting]), name) == float(value)


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("layout=vgg", "layout must be one of paper, torchvision; got vgg"),
        ("precision=float64", "precision must be one of float32, bfloat16, auto; got float64"),
        ("compilation=yes", "compilation must be one of off, on, auto; got yes"),
        ("has_sixth_convolution=1", "has_sixth_convolution must be true or false; got 1"),
        ("epochs=ten", "epochs must be a whole number; got ten"),
        ("epochs=1.5", "epochs must be a whole number; got 1.5"),
        ("dropout=half", "dropout must be a number; got half"),
        ("flip=maybe", "flip must be true or false; got maybe"),
        ("momentum=", "momentum must be a number; got "),
    ],
)
def test_a_value_of_the_wrong_type_is_answered_with_the_right_type(
    setting: str, answer: str
) -> None:
    assert refusal(setting) == answer


@pytest.mark.parametrize("setting", ["speed=1", "learning-rate=1", "epochs", "", "=3"])
def test_an_unknown_setting_is_answered_with_all_settings(setting: str) -> None:
    message = refusal(setting)
    assert repr(setting) in message
    assert all(field.name in message for field in dataclasses.fields(Recipe))


def test_settings_are_read_as_the_types_of_their_fields() -> None:
    switches = ["flip=False", "decay_biases=false"]
    others = ["epochs=3", "learning_rate=1e-2", "layout=torchvision", "epochs=4"]
    recipe = paper().with_settings([*switches, *others])
    assert (recipe.epochs, recipe.learning_rate) == (4, 0.01)
    assert (recipe.flip, recipe.decay_biases) == (False, False)
    assert recipe.layout == "torchvision"
    assert paper().with_settings([]) == paper()


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(RecipeError, match="nesterov needs a momentum above 0; got 0"):
        dataclasses.replace(modern(), momentum=0.0)


def test_nesterov_does_not_go_with_the_printed_update() -> None:
    message = refusal("nesterov=true")
    assert message.startswith("nesterov=true needs rate_in_velocity=false")
    assert message.endswith("got rate_in_velocity=true")
    assert paper().with_settings(["nesterov=true", "rate_in_velocity=false"]).nesterov
    with pytest.raises(RecipeError, match="nesterov=true needs rate_in_velocity=false"):
        modern().with_settings(["rate_in_velocity=true"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]()
    restored: dict[str, Any] = json.loads(json.dumps(recipe.as_dict()))
    assert Recipe(**restored) == recipe


def test_the_first_convolution_cannot_be_left_out() -> None:
    with pytest.raises(
        RecipeError, match="without_convolution must be 2 to 5, or 0 for none; got 1"
    ):
        paper().with_settings(["without_convolution=1"])


@pytest.mark.parametrize(
    ("cause", "setting", "remedy"),
    [
        ("layout=torchvision", "num_towers=1", "layout=paper"),
        ("crop=random", "min_crop_area=0.5", "crop=resized"),
        ("colour_noise=0", "colour_noise_until=0.67", "a colour_noise above 0"),
        ("schedule=cosine", "patience_epochs=3", "schedule=plateau"),
        ("schedule=plateau", "warmup_epochs=3", "schedule=cosine"),
    ],
)
def test_a_setting_without_effect_is_answered_with_the_cause_and_the_remedy(
    cause: str, setting: str, remedy: str
) -> None:
    name = setting.partition("=")[0]
    answer = f"{name} has no effect with {cause}; set {remedy} too, or leave {name} out"
    assert refusal(cause, setting) == answer
    assert refusal(setting, cause) == answer
    needed = "colour_noise=0.1" if cause == "colour_noise=0" else remedy
    assert paper().with_settings([needed, setting]) != paper().with_settings([needed])


def test_a_default_without_effect_is_not_a_mistake() -> None:
    settings = ["schedule=plateau", "crop=random", "colour_noise=0", "layout=torchvision"]
    assert modern().with_settings(settings).warmup_epochs == 2
    digits = dataclasses.replace(paper(), min_crop_area=0.6)  # as data can need
    assert digits.with_settings(["epochs=3"]).min_crop_area == 0.6


def test_half_the_kernels_need_a_single_tower() -> None:
    assert refusal("kernels=half") == "kernels=half needs num_towers=1; got num_towers=2"
    assert paper().with_settings(["kernels=half", "num_towers=1"]).kernels == "half"


def test_a_sixth_convolution_with_batch_norm_needs_96_pixels() -> None:
    settings = ("has_sixth_convolution=true", "normalization=batch")
    message = refusal(*settings, "image_size=95")
    assert message.endswith("needs an image_size of 96 or more; got 95")
    assert paper().with_settings([*settings, "image_size=96"]).has_sixth_convolution


def test_the_contrast_of_two_recipes_names_the_values_of_both() -> None:
    these, others = {"epochs": 3, "flip": True}, {"epochs": 5, "flip": False}
    assert contrast(these, others, ["epochs"]) == "epochs=3, not epochs=5"
    both = "epochs=3, flip=True, not epochs=5, flip=False"
    assert contrast(these, others, ["epochs", "flip"]) == both
