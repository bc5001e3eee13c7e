"""The settings of a run: the papers' values, what may be set, and how a mistake is answered."""

import ast
import dataclasses
import inspect
import json
from itertools import pairwise
from typing import Any, get_type_hints

import pytest

from training.learning.recipe import RECIPES, Recipe, RecipeError, modern, paper


def refusal(*settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        paper().with_settings(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    wanted = {
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
    assert {name: settings[name] for name in wanted} == wanted


def test_every_setting_has_a_sentence_under_it_and_every_number_a_range_beside_it() -> None:
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
def test_a_value_out_of_range_is_answered_with_its_name_the_range_and_the_value(
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
def test_a_value_of_the_wrong_kind_is_answered_with_the_right_one(
    setting: str, answer: str
) -> None:
    assert refusal(setting) == answer


@pytest.mark.parametrize("setting", ["speed=1", "learning-rate=1", "epochs", "", "=3"])
def test_an_unknown_setting_is_answered_with_all_there_are(setting: str) -> None:
    message = refusal(setting)
    assert repr(setting) in message
    assert all(field.name in message for field in dataclasses.fields(Recipe))


def test_settings_are_read_as_the_types_of_their_fields() -> None:
    recipe = paper().with_settings(
        [
            "epochs=3",
            "learning_rate=1e-2",
            "flip=False",
            "decay_biases=false",
            "layout=torchvision",
            "epochs=4",
        ]
    )
    assert (
        recipe.epochs,
        recipe.learning_rate,
        recipe.flip,
        recipe.decay_biases,
        recipe.layout,
    ) == (4, 0.01, False, False, "torchvision")
    assert paper().with_settings([]) == paper()


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(RecipeError, match="nesterov needs a momentum above 0; got 0"):
        dataclasses.replace(modern(), momentum=0.0)


def test_nesterov_has_no_printed_form() -> None:
    assert (
        refusal("nesterov=true")
        == "nesterov has no printed form; set rate_in_velocity=false with it, got true"
    )
    assert paper().with_settings(["nesterov=true", "rate_in_velocity=false"]).nesterov
    with pytest.raises(RecipeError, match="nesterov has no printed form"):
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
def test_a_setting_that_does_nothing_is_answered_with_why_and_the_remedy(
    cause: str, setting: str, remedy: str
) -> None:
    answer = f"{setting.partition('=')[0]} does nothing with {cause}; set {remedy} with it, or leave it out"
    assert refusal(cause, setting) == answer
    assert refusal(setting, cause) == answer
    needed = "colour_noise=0.1" if cause == "colour_noise=0" else remedy
    assert paper().with_settings([needed, setting]) != paper().with_settings([needed])


def test_a_default_that_does_nothing_is_no_mistake() -> None:
    assert (
        modern()
        .with_settings(["schedule=plateau", "crop=random", "colour_noise=0", "layout=torchvision"])
        .warmup_epochs
        == 2
    )
    digits = dataclasses.replace(paper(), min_crop_area=0.6)  # as the data may ask for
    assert digits.with_settings(["epochs=3"]).min_crop_area == 0.6
