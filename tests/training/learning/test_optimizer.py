"""The update rule: torch's, and the one that the paper prints."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from training.learning.optimizer import (
    OldLayers,
    build_optimizer,
    clip_and_update,
    drop_old_gradients,
    load_optimizer,
    set_rate,
)
from training.learning.plan import architecture_of
from training.learning.recipe import Recipe, modern, paper
from training.network.alexnet import AlexNet

CHANGING = (0.01, 0.01, 0.02, 0.05, 0.05, 0.005, 0.0005, 0.0004, 0.03)
"""Rates that stay, rise, and fall to a tenth."""


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def run(recipe: Recipe, rates: Sequence[float]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Take one step at each rate, with random gradients that are the same in each run.

    Returns the parameters after the last step, and the gradients of every step.
    """
    network = small_network()
    optimizer = build_optimizer(network, recipe)
    random = torch.Generator().manual_seed(1)
    gradients = []
    for rate in rates:
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)
        made = [parameter.grad for parameter in network.parameters()]
        gradients.append([gradient.double() for gradient in made if gradient is not None])
        set_rate(optimizer, rate, recipe)
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()], gradients


@pytest.mark.parametrize(
    "rates",
    [CHANGING, (0.01,) * 5, (0.0, 0.005, 0.01, 0.01)],
    ids=["changing", "constant", "from zero"],
)
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_the_update_is_the_printed_one_while_the_rate_changes(
    rates: Sequence[float], momentum: float
) -> None:
    recipe = dataclasses.replace(paper(), momentum=momentum, weight_decay=0.01)
    parameters, gradients = run(recipe, rates)
    w = [parameter.detach().double() for parameter in small_network().parameters()]
    v = [torch.zeros_like(parameter) for parameter in w]
    for rate, step in zip(rates, gradients, strict=True):
        for i, gradient in enumerate(step):
            v[i] = momentum * v[i] - rate * (gradient + 0.01 * w[i])  # section 5
            w[i] = w[i] + v[i]
    for one, other in zip(parameters, w, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_the_rate_in_the_velocity_the_update_is_torchs(nesterov: bool) -> None:
    recipe = dataclasses.replace(
        paper(), rate_in_velocity=False, nesterov=nesterov, weight_decay=0.01
    )
    parameters, gradients = run(recipe, CHANGING)
    network = small_network()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1.0, momentum=0.9, nesterov=nesterov, weight_decay=0.01
    )
    for rate, step in zip(CHANGING, gradients, strict=True):
        for parameter, gradient in zip(network.parameters(), step, strict=True):
            parameter.grad = gradient.float()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    for one, other in zip(parameters, network.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=0, atol=1e-6)


def test_the_two_rules_differ_only_while_the_rate_changes() -> None:
    printed, torchs = (
        dataclasses.replace(paper(), rate_in_velocity=is_printed) for is_printed in (True, False)
    )
    for rates, differ in (((0.01,) * 4, False), (CHANGING, True)):
        (first, *_), (second, *_) = run(printed, rates)[0], run(torchs, rates)[0]
        assert (float((first - second).abs().max()) > 1e-3) == differ


def test_a_restored_optimizer_continues_where_the_saved_one_stopped() -> None:
    recipe, networks = paper(), (small_network(), small_network())
    through, stopped = (build_optimizer(network, recipe) for network in networks)
    for step, rate in enumerate((0.01, 0.001, 0.002)):
        for optimizer, network in zip((through, stopped), networks, strict=True):
            for parameter in network.parameters():
                parameter.grad = torch.full_like(parameter, step + 1.0)
            set_rate(optimizer, rate, recipe)
            optimizer.step()
        restored = build_optimizer(networks[1], recipe)
        load_optimizer(restored, stopped.state_dict())
        stopped = restored
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_the_modern_recipe_does_not_decay_biases() -> None:
    for recipe, expected in (
        (paper(), {1: 0.0005, 2: 0.0005, 4: 0.0005}),
        (modern(), {1: 0.0, 2: 0.0005, 4: 0.0005}),
    ):
        with torch.device("meta"):
            network = AlexNet(architecture_of(recipe, 3))
        groups = build_optimizer(network, recipe).param_groups
        decays = {
            parameter.ndim: group["weight_decay"]
            for group in groups
            for parameter in group["params"]
        }
        assert decays == expected
        assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_restored_optimizer_keeps_the_weight_decay_of_its_recipe() -> None:
    network = small_network()
    saved = build_optimizer(network, paper())
    restored = build_optimizer(network, dataclasses.replace(paper(), weight_decay=0.25))
    load_optimizer(restored, saved.state_dict())
    assert [group["weight_decay"] for group in restored.param_groups] == [0.25, 0.25]
    assert [group["lr"] for group in restored.param_groups] == [0.01, 0.01]


class Pair(nn.Module):
    """A hidden layer and an output layer, named as in AlexNet."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(3, 3), nn.Linear(3, 2)


@pytest.mark.parametrize("recipe", [paper(), modern()], ids=["paper", "modern"])
@pytest.mark.parametrize(
    ("old_layers", "hidden_share", "output_share"),
    [("none", 1.0, 1.0), ("hidden", 0.25, 1.0), ("all", 0.25, 0.25)],
)
def test_old_layers_change_by_their_share_of_the_rate(
    recipe: Recipe,
    old_layers: OldLayers,
    hidden_share: float,
    output_share: float,
) -> None:
    recipe = dataclasses.replace(recipe, old_layers_rate=0.25, weight_decay=0.0)
    network = Pair()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = build_optimizer(network, recipe, old_layers)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimizer, 0.5, recipe)
    optimizer.step()
    step = 0.5 * (1 + recipe.momentum * recipe.nesterov)
    for name, tensor in network.state_dict().items():
        share = output_share if name.startswith("output.") else hidden_share
        torch.testing.assert_close(before[name] - tensor, torch.full_like(tensor, share * step))


def test_without_a_special_treatment_old_layers_share_the_groups_of_earlier_versions() -> None:
    network = Pair()
    assert len(build_optimizer(network, modern(), "hidden").param_groups) == 2
    frozen = dataclasses.replace(modern(), frozen_epochs=1)
    assert len(build_optimizer(network, frozen, "hidden").param_groups) == 4


@pytest.mark.parametrize("recipe", [paper(), modern()], ids=["paper", "modern"])
def test_layers_without_gradients_stay_until_they_get_some(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, frozen_epochs=1)
    network = Pair()
    hidden, output = network.hidden.weight, network.output.weight
    optimizer = build_optimizer(network, recipe, "hidden")
    changes = []
    for is_frozen in (True, True, False, False):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        if is_frozen:
            drop_old_gradients(optimizer)
        before = hidden.detach().clone(), output.detach().clone()
        set_rate(optimizer, 0.1, recipe)
        clip_and_update(optimizer, recipe.max_gradient_norm)
        changes.append(
            [not torch.equal(old, new) for old, new in zip(before, (hidden, output), strict=True)]
        )
    assert changes == [[False, True], [False, True], [True, True], [True, True]]


@pytest.mark.parametrize("bound", [0.0, 0.5, 50.0])
def test_an_update_scales_a_gradient_down_to_the_bound_as_torch_does(bound: float) -> None:
    recipe = dataclasses.replace(modern(), max_gradient_norm=bound)
    ours, theirs = small_network(), small_network()
    our_optimizer, their_optimizer = (
        build_optimizer(network, recipe) for network in (ours, theirs)
    )
    random = torch.Generator().manual_seed(1)
    for length in (5.0, 0.1, 5.0):  # above the bound of 0.5, under it, and above it again
        gradients = [
            torch.randn(parameter.shape, generator=random) for parameter in ours.parameters()
        ]
        whole = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        for network in (ours, theirs):
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient * length / whole
        clip_and_update(our_optimizer, bound)
        if bound:
            nn.utils.clip_grad_norm_(theirs.parameters(), bound)
        their_optimizer.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other)
