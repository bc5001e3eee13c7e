"""A tower a device, on two CPUs: the sums of the grouped network, and its weights again at the end."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.errors import UserError
from training.learning.optimizer import optimizer_of, set_rate
from training.learning.recipe import Recipe
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.towers import TowerParallel

CPUS = ("cpu", "cpu")
VARIANTS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "batch norm": {"normalization": "batch"},
    "no normalization": {"normalization": "none"},
    "plain pooling": {"pooling": "plain"},
    "tanh and the mean image": {"activation": "tanh", "mean": "image"},
    **{f"without conv{number}": {"without_convolution": number} for number in (2, 3, 4, 5)},
    "a sixth convolution": {"has_sixth_convolution": True},
    "a sixth without the fifth, batch norm": {
        "has_sixth_convolution": True,
        "without_convolution": 5,
        "normalization": "batch",
    },
}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full layers of 64 units in place of 4096: the rest is all there."""
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)


def network_of(seed: int = 0, **changes: Any) -> AlexNet:
    settings: dict[str, Any] = {
        "layout": "paper",
        "normalization": "response",
        "num_classes": 3,
        "image_size": 99,
        "dropout": 0.0,
    }
    network = AlexNet(Architecture(**settings | changes))
    initialize(network, "kaiming", seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 and "norm" not in name:
            nn.init.normal_(parameter, std=0.1)  # biases that a mistake cannot hide behind
    network.mean.copy_(torch.rand(network.mean.shape) * 40 + 100)
    network.std.fill_(60)
    return network


def images(seed: int, count: int = 6) -> Tensor:
    return torch.randint(
        0, 256, (count, 99, 99, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def assert_same_state(one: nn.Module, other: nn.Module, *, tolerance: float) -> None:
    torch.testing.assert_close(
        dict(one.state_dict()), dict(other.state_dict()), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_towers_are_the_grouped_network(variant: str) -> None:
    whole = network_of(**VARIANTS[variant])
    towers = TowerParallel(whole, CPUS)
    recipe = Recipe(learning_rate=0.001, image_size=99)
    optimizers = [optimizer_of(network, recipe) for network in (whole, towers)]
    written = network_of(seed=1, **VARIANTS[variant])
    written.mean.copy_(whole.mean)
    written.std.copy_(whole.std)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    for step in range(3):
        found, wanted = towers(images(step)), whole(images(step))
        for one, other in zip(found, wanted, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(
                one, other, rtol=1e-3, atol=1e-3 * float(other.detach().abs().max())
            )
        for (logits, _), optimizer in zip((wanted, found), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, torch.arange(6) % 3).backward()
            set_rate(optimizer, 0.001 * (step + 1), recipe)
            optimizer.step()
        towers.write_back(written)
        assert_same_state(written, whole, tolerance=1e-4)
    assert all(
        not torch.equal(whole.get_parameter(name), before[name])
        for name, _ in whole.named_parameters()
    )


def test_every_gradient_is_that_of_its_half() -> None:
    whole = network_of()
    towers = TowerParallel(whole, CPUS)
    for network in (whole, towers):
        nn.functional.cross_entropy(network(images(0))[0], torch.arange(6) % 3).backward()
    first, second = (dict(tower.named_parameters()) for tower in towers.towers)
    for name, parameter in first.items():
        halves = [half.grad for half in (parameter, second[name])]
        wanted = whole.get_parameter(name).grad
        assert halves[0] is not None
        assert halves[1] is not None
        assert wanted is not None
        torch.testing.assert_close(
            torch.cat([half for half in halves if half is not None]), wanted, rtol=1e-3, atol=1e-4
        )


def test_each_tower_holds_half_of_every_layer_but_the_last() -> None:
    whole = network_of()
    towers = TowerParallel(whole, CPUS)
    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in towers.towers[1].named_parameters()
        if name.endswith("weight")
    }
    assert shapes == {
        "convolutions.conv1.weight": (48, 3, 11, 11),
        "convolutions.conv2.weight": (128, 48, 5, 5),
        "convolutions.conv3.weight": (192, 256, 3, 3),
        "convolutions.conv4.weight": (192, 192, 3, 3),
        "convolutions.conv5.weight": (128, 192, 3, 3),
        "hidden.fc6.weight": (32, 1024),
        "hidden.fc7.weight": (32, 64),
    }
    assert sum(parameter.numel() for parameter in towers.parameters()) == sum(
        parameter.numel() for parameter in whole.parameters()
    )


def test_the_towers_exchange_their_maps_at_conv3_and_before_the_full_layers_only() -> None:
    towers = TowerParallel(network_of(), CPUS)
    names = [
        name
        for part in ("convolutions", "hidden")
        for name, _ in towers.towers[0].get_submodule(part).named_children()
    ]
    assert [name for name, exchanges in zip(names, towers.exchanges, strict=True) if exchanges] == [
        "conv3",
        "fc6",
        "fc7",
    ]


@pytest.mark.parametrize("normalization", ["response", "batch"])
def test_what_is_read_is_written_back_bit_for_bit(normalization: str) -> None:
    whole, other = (
        network_of(normalization=normalization),
        network_of(seed=1, normalization=normalization),
    )
    towers = TowerParallel(other, CPUS)
    towers.read(whole)
    towers.write_back(other)
    other.mean.copy_(whole.mean)  # preprocessing is not trained, so it is not written back
    assert_same_state(other, whole, tolerance=0)


def test_the_towers_weights_are_copies() -> None:
    whole = network_of()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    towers = TowerParallel(whole, CPUS)
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize(
    ("devices", "changes", "got"),
    [
        (("cpu",), {}, "got 1 and layout=paper, num_towers=2"),
        (("cpu",) * 3, {}, "got 3 and layout=paper, num_towers=2"),
        (CPUS, {"num_towers": 1}, "got 2 and layout=paper, num_towers=1"),
        (CPUS, {"layout": "torchvision"}, "got 2 and layout=torchvision, num_towers=2"),
    ],
)
def test_other_than_two_devices_and_two_towers_are_refused(
    devices: tuple[str, ...], changes: dict[str, Any], got: str
) -> None:
    with pytest.raises(UserError) as caught:
        TowerParallel(network_of(**changes), devices)
    assert (
        str(caught.value)
        == f"a tower a device takes two devices and two towers of the paper's layout; {got}"
    )


def test_a_response_that_crosses_the_towers_is_refused() -> None:
    with pytest.raises(
        UserError, match="a tower a device needs a response normalisation within each tower"
    ):
        TowerParallel(network_of(response_crosses_towers=True), CPUS)
