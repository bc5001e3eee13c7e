"""A plan: the architecture of a recipe, and what `auto` stands for on a device."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.learning.small_plans import RECIPE, make_plan
from training.learning import plan as plan_module
from training.learning.distributed import Workers
from training.learning.plan import (
    SHAPE_SETTINGS,
    architecture_of,
    executed_recipe,
    is_compiled,
    training_device,
    uses_bfloat16,
)
from training.learning.recipe import RECIPES
from training.network.alexnet import Architecture

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_an_architecture_takes_every_setting_that_a_recipe_shares_with_it(name: str) -> None:
    recipe = RECIPES[name]()
    architecture = architecture_of(recipe, num_classes=7)
    shared = {field.name for field in dataclasses.fields(Architecture)} & set(recipe.as_dict())
    assert shared == set(SHAPE_SETTINGS)
    assert {name: getattr(architecture, name) for name in shared} == {
        name: getattr(recipe, name) for name in shared
    }
    assert architecture.num_classes == 7


def test_the_precision_is_the_recipes_unless_it_is_auto() -> None:
    assert uses_bfloat16(dataclasses.replace(RECIPE, precision="bfloat16"), CPU)
    assert not uses_bfloat16(dataclasses.replace(RECIPE, precision="float32"), CPU)


def test_the_network_is_compiled_as_the_recipe_says_and_with_auto_on_one_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_module, "can_compile_for_gpu", lambda: True)
    compilations = {
        (setting, device, num_processes): is_compiled(
            dataclasses.replace(RECIPE, compilation=setting), torch.device(device), num_processes
        )
        for setting in ("off", "on", "auto")
        for device in ("cpu", "cuda")
        for num_processes in (1, 2)
    }
    assert {case for case, is_true in compilations.items() if is_true} == {
        ("on", "cpu", 1),
        ("on", "cpu", 2),
        ("on", "cuda", 1),
        ("on", "cuda", 2),
        ("auto", "cuda", 1),
    }


@pytest.mark.parametrize(
    ("has_triton", "has_compiler", "has_headers"),
    [(True, True, True), (True, False, True), (False, True, True), (True, True, False)],
)
def test_auto_compiles_only_with_triton_a_compiler_and_headers(
    has_triton: bool,
    has_compiler: bool,
    has_headers: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if has_headers:
        (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(plan_module, "find_spec", lambda _: "triton" if has_triton else None)
    compiler = "/usr/bin/gcc" if has_compiler else None
    monkeypatch.setattr("shutil.which", lambda name: compiler if name == "gcc" else None)
    recipe = dataclasses.replace(RECIPE, compilation="auto")
    assert is_compiled(recipe, torch.device("cuda")) == (
        has_triton and has_compiler and has_headers
    )


def test_towers_train_on_their_first_device_and_other_networks_on_the_processes_own() -> None:
    workers = Workers(device=torch.device("cuda", 1))
    assert training_device(make_plan(Path()), workers) == torch.device("cuda", 1)
    assert training_device(make_plan(Path(), tower_devices=("cpu", "cuda:0")), workers) == CPU


@pytest.mark.parametrize("is_native", [True, False])
def test_an_executed_recipe_says_what_auto_stood_for(
    is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: is_native)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    recipe = dataclasses.replace(RECIPE, precision="auto", compilation="auto")
    executed = executed_recipe(make_plan(Path(), recipe), Workers())
    assert (executed.precision, executed.compilation) == (
        "bfloat16" if is_native else "float32",
        "off",
    )
    assert dataclasses.replace(executed, precision="auto", compilation="auto") == recipe


def test_towers_are_not_compiled() -> None:
    for setting in ("on", "auto"):
        recipe = dataclasses.replace(RECIPE, compilation=setting)
        plan = make_plan(Path(), recipe, tower_devices=("cpu", "cpu"))
        assert executed_recipe(plan, Workers()).compilation == "off"
