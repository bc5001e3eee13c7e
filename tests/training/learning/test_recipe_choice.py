"""The recipe that follows from a request, its images and its initial model."""

import dataclasses
from pathlib import Path

import pytest

from tests.training.learning.small_requests import (
    QUICK,
    make_request,
    plan_of,
    refusal,
    refuse_to_decode,
)
from training.learning.recipe import Recipe
from training.learning.recipe_choice import apply_settings, resolve, with_sized_settings
from training.learning.request import Request
from training.learning.session import train


def requested_recipe(request: Request) -> Recipe:
    chosen, _ = resolve(request)
    return chosen.recipe


def test_a_requests_settings_override_the_datas_and_these_the_recipes() -> None:
    defaults = {"epochs": 12, "flip": False, "image_size": 67}
    recipe = apply_settings(Request(data="x", out=Path("x")), defaults)
    assert (recipe.epochs, recipe.flip, recipe.image_size) == (12, False, 67)
    assert recipe.schedule == "cosine"
    request = Request(
        data="x",
        out=Path("x"),
        recipe="paper",
        epochs=5,
        image_size=128,
        settings=("flip=true", "epochs=7"),
    )
    recipe = apply_settings(request, defaults)
    assert (recipe.epochs, recipe.flip, recipe.image_size) == (7, True, 128)
    assert recipe.schedule == "plateau"


def test_an_unknown_recipe_is_answered_with_the_known_ones(
    colour_folder: Path, tmp_path: Path
) -> None:
    message = refusal(lambda: train(make_request(colour_folder, tmp_path, recipe="best")))
    assert message == "the recipe must be one of paper, modern; got best"


def test_the_requested_recipe_is_the_one_that_the_run_follows(
    tiny_model: Path, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        make_request(colour_folder, tmp_path / "one"),
        make_request("digits", tmp_path / "two", recipe="paper"),
        make_request(colour_folder, tmp_path / "three", init=tiny_model, image_size=None),
    ]
    plans = [plan_of(requests[0]), plan_of(requests[2])]
    refuse_to_decode(monkeypatch)
    recipes = [requested_recipe(request) for request in requests]
    assert [recipes[0], recipes[2]] == [plan.recipe for plan in plans]
    assert not recipes[1].flip  # as the digits need
    assert recipes[2].image_size == 67  # as the initial model has


def test_an_initial_model_decides_the_shapes_and_conflicting_settings_are_refused(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    paper = make_request(colour_folder, out, init=tiny_model, recipe="paper", image_size=None)
    recipe = plan_of(paper).recipe
    assert (recipe.normalization, recipe.image_size, recipe.mean) == ("batch", 67, "channel")
    conflicting = make_request(
        colour_folder,
        tmp_path / "other",
        init=tiny_model,
        image_size=83,
        settings=("normalization=none",),
    )
    assert refusal(lambda: train(conflicting)) == (
        f"{tiny_model} has normalization=batch, image_size=67, "
        "not normalization=none, image_size=83; "
        "leave these settings out, or train without --init"
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["last_layer=probe", "old_layers_rate=0.5", "frozen_epochs=1"])
def test_settings_of_fine_tuning_are_refused_without_an_initial_model(
    colour_folder: Path, tmp_path: Path, name: str
) -> None:
    request = make_request(colour_folder, tmp_path / "model", settings=(*QUICK, name))
    message = refusal(lambda: train(request))
    setting = name.partition("=")[0]
    assert message == f"{setting} has no effect without --init; pass --init too, or leave it out"


def test_settings_of_a_new_last_layer_are_refused_if_the_last_layer_is_kept(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    request = make_request(
        colour_folder, tmp_path / "model", init=tiny_model, settings=(*QUICK, "frozen_epochs=1")
    )
    message = refusal(lambda: train(request))
    assert message == (
        f"frozen_epochs has no effect, because the images have the classes of {tiny_model}, "
        "and its last layer is kept; leave it out"
    )
    kept = make_request(colour_folder, tmp_path / "kept", init=tiny_model)
    assert plan_of(kept).recipe.last_layer == "random"


def test_sized_settings_can_be_fixed_for_several_runs(colour_folder: Path, tmp_path: Path) -> None:
    request = Request(data=str(colour_folder), out=tmp_path)
    fixed = with_sized_settings(request, resolve(request)[0])
    assert requested_recipe(fixed) == requested_recipe(request)
    # Without batch norm, the rate would be lower, but now it is fixed.
    changed = dataclasses.replace(fixed, settings=(*fixed.settings, "normalization=none"))
    assert requested_recipe(changed).learning_rate == requested_recipe(request).learning_rate


def test_the_digits_learning_rate_is_lower_for_a_network_without_batch_norm(tmp_path: Path) -> None:
    request = Request(data="digits", out=tmp_path)
    without = dataclasses.replace(request, settings=("normalization=none",))
    rates = [requested_recipe(each).learning_rate for each in (request, without)]
    assert rates == [0.05, pytest.approx(0.005)]
