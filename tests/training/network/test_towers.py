"""One tower per device, on two CPUs, gives the grouped network's results and weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.errors import UserError
from training.learning.optimizer import build_optimizer, set_rate
from training.learning.recipe import Recipe
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.towers import TowerParallel, check_towers

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
def small_hidden_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the fully connected layers small: 64 units instead of 4096."""
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)


def make_network(seed: int = 0, **changes: Any) -> AlexNet:
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
            nn.init.normal_(parameter, std=0.1)  # with biases of 0 a wrong one would not show
    network.mean.copy_(torch.rand(network.mean.shape) * 40 + 100)
    network.std.fill_(60)
    return network


def random_images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (6, 99, 99, 3), dtype=torch.uint8, generator=generator)


def assert_same_state(one: nn.Module, other: nn.Module, *, tolerance: float) -> None:
    torch.testing.assert_close(
        dict(one.state_dict()), dict(other.state_dict()), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_towers_train_like_the_grouped_network(variant: str) -> None:
    whole = make_network(**VARIANTS[variant])
    towers = TowerParallel(whole, CPUS)
    recipe = Recipe(learning_rate=0.001, image_size=99)
    optimizers = [build_optimizer(network, recipe) for network in (whole, towers)]
    written = make_network(seed=1, **VARIANTS[variant])
    written.mean.copy_(whole.mean)
    written.std.copy_(whole.std)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    for step in range(3):
        images = random_images(step)
        actual, expected = towers(images), whole(images)
        for one, other in zip(actual, expected, strict=True):
            assert one.shape == other.shape
            largest = float(other.detach().abs().max())
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * largest)
        for (logits, _), optimizer in zip((expected, actual), optimizers, strict=True):
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


def test_the_gradients_of_the_halves_are_the_gradients_of_the_whole() -> None:
    whole = make_network()
    towers = TowerParallel(whole, CPUS)
    for network in (whole, towers):
        logits, _ = network(random_images(0))
        nn.functional.cross_entropy(logits, torch.arange(6) % 3).backward()
    first, second = towers.towers
    for name, _ in first.named_parameters():
        joined = torch.cat([gradient(tower, name) for tower in (first, second)])
        torch.testing.assert_close(joined, gradient(whole, name), rtol=1e-3, atol=1e-4)


def gradient(module: nn.Module, name: str) -> Tensor:
    values = module.get_parameter(name).grad
    assert values is not None
    return values


def test_each_tower_holds_half_of_every_layer_except_the_last() -> None:
    whole = make_network()
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
    num_parameters = [
        sum(parameter.numel() for parameter in network.parameters()) for network in (towers, whole)
    ]
    assert num_parameters[0] == num_parameters[1]


def test_the_towers_exchange_maps_at_conv3_and_before_the_fully_connected_layers_only() -> None:
    towers = TowerParallel(make_network(), CPUS)
    names = [
        name
        for part in ("convolutions", "hidden")
        for name, _ in towers.towers[0].get_submodule(part).named_children()
    ]
    exchanges = zip(names, towers.exchanges, strict=True)
    assert [name for name, has_exchange in exchanges if has_exchange] == ["conv3", "fc6", "fc7"]


@pytest.mark.parametrize("normalization", ["response", "batch"])
def test_weights_are_written_back_bit_for_bit(normalization: str) -> None:
    whole = make_network(normalization=normalization)
    other = make_network(seed=1, normalization=normalization)
    towers = TowerParallel(other, CPUS)
    towers.read(whole)
    towers.write_back(other)
    other.mean.copy_(whole.mean)  # preprocessing is not trained, so it is not written back
    assert_same_state(other, whole, tolerance=0)


def test_the_towers_hold_copies_of_the_weights() -> None:
    whole = make_network()
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
def test_anything_other_than_two_devices_and_two_towers_is_refused(
    devices: tuple[str, ...], changes: dict[str, Any], got: str
) -> None:
    with pytest.raises(UserError) as caught:
        TowerParallel(make_network(**changes), devices)
    required = "exactly two devices and a network with layout=paper and num_towers=2"
    assert str(caught.value) == f"--tower-devices needs {required}; {got}"


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ("gpu0", "names gpu0, but that is not a device for training"),
        ("meta", "names meta, but that is not a device for training"),
        ("cuda:99", "names cuda:99, but this machine has"),
    ],
)
def test_a_device_that_this_machine_does_not_have_is_refused(device: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        check_towers(make_network().architecture, ("cpu", device))


def test_a_response_normalisation_that_crosses_the_towers_is_refused() -> None:
    needed = "--tower-devices needs a response normalisation within each tower"
    with pytest.raises(UserError, match=needed):
        TowerParallel(make_network(response_crosses_towers=True), CPUS)
