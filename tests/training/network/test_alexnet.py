"""The networks compared with the paper's numbers, torch's operators and torchvision's AlexNet."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from training.data.images import Pixels, canvas_px, centre
from training.network.alexnet import (
    AlexNet,
    Architecture,
    LocalResponseNorm,
    initialize,
)
from training.network.preprocessing import measure_pixels


def architecture(**changes: Any) -> Architecture:
    settings: dict[str, Any] = {
        "layout": "paper",
        "normalization": "response",
        "num_classes": 3,
        "image_size": 67,
    }
    return Architecture(**settings | changes)


def shapes_only(**changes: Any) -> AlexNet:
    """A network without weights in memory, so that the full size costs nothing."""
    with torch.device("meta"):
        return AlexNet(architecture(**changes))


def num_parameters(module: nn.Module) -> int:
    """Number of trained values, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def convolution_names(network: AlexNet) -> list[str]:
    """The names of the layers up to the features, in order: conv1, activation1, ..."""
    return [name for name, _ in network.convolutions.named_children()]


def random_images(size: int, num_images: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def preprocessed(network: AlexNet, images: Tensor) -> Tensor:
    return ((images.float() - network.mean) / network.std).permute(0, 3, 1, 2)


def output_of_layer(network: AlexNet, name: str, images: Tensor) -> Tensor:
    """The output of one of the layers in `network.convolutions`."""
    layers = network.convolutions[: convolution_names(network).index(name) + 1]
    output: Tensor = layers(preprocessed(network, images))
    return output


@pytest.mark.parametrize(
    ("layout", "normalization", "count"),
    [("paper", "response", 60_965_224), ("torchvision", "none", 61_100_840)],
)
def test_a_network_of_1000_classes_has_the_known_number_of_parameters(
    layout: str, normalization: str, count: int
) -> None:
    network = shapes_only(
        layout=layout, normalization=normalization, num_classes=1000, image_size=224
    )
    assert num_parameters(network) == count


def test_each_layer_of_the_papers_network_has_its_known_number_of_parameters() -> None:
    network = shapes_only(num_classes=1000, image_size=224)
    layers = {
        name.rpartition(".")[2]: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert {name: num_parameters(layer) for name, layer in layers.items()} == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }


def test_the_papers_layers_have_the_papers_shapes_for_224_pixels() -> None:
    network = shapes_only(image_size=224)
    x = torch.empty(1, 3, 224, 224, device="meta")
    shapes = {}
    for name, module in network.convolutions.named_children():
        x = module(x)
        shapes[name] = tuple(x.shape[1:])
    assert {name: shape for name, shape in shapes.items() if name.startswith(("conv", "pool"))} == {
        "conv1": (96, 55, 55),
        "pool1": (96, 27, 27),
        "conv2": (256, 27, 27),
        "pool2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
    }
    assert shapes["flatten"] == (9216,)


def test_the_last_window_of_conv1_hangs_three_pixels_over_the_right_and_bottom_edges() -> None:
    network = AlexNet(architecture(image_size=224))
    images = random_images(224, 1)
    positions = output_of_layer(network, "conv1", images)
    kernel = network.get_parameter("convolutions.conv1.weight")
    bias = network.get_parameter("convolutions.conv1.bias")
    x = preprocessed(network, images)[0]
    for row, column in ((0, 0), (54, 0), (54, 54)):
        window = x[:, 4 * row : 4 * row + 11, 4 * column : 4 * column + 11]
        height, width = window.shape[1:]
        assert (height, width) == (8 if row == 54 else 11, 8 if column == 54 else 11)
        expected = (kernel[:, :, :height, :width] * window).sum((1, 2, 3)) + bias
        torch.testing.assert_close(positions[0, :, row, column], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("layout", "size"),
    [*(("paper", size) for size in (67, 68, 70, 97, 128, 224)), ("torchvision", 67)],
)
def test_any_square_from_67_pixels_gives_logits_and_4096_features_without_negative_values(
    layout: str, size: int
) -> None:
    network = AlexNet(architecture(layout=layout, image_size=size)).eval()
    with torch.inference_mode():
        logits, features = network(random_images(size))
    assert logits.shape == (2, 3)
    assert features.shape == (2, 4096)
    assert features.min() == 0
    assert features.max() > 0


def test_with_torchvisions_weights_the_logits_and_features_are_torchvisions() -> None:
    ours = AlexNet(
        architecture(layout="torchvision", normalization="none", num_classes=10, image_size=224)
    ).eval()
    initialize(ours, "kaiming", seed=0)
    for parameter in ours.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)  # with biases of 0 a misplaced one would not show
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ours.mean.copy_(255 * mean)
    ours.std.copy_(255 * std)
    theirs = torchvision.models.alexnet(num_classes=10).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.parameters(), strict=True)))
    images = random_images(224)
    with torch.inference_mode():
        x = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
        hidden = theirs.classifier[:-1](torch.flatten(theirs.avgpool(theirs.features(x)), 1))
        logits, features = ours(images)
        expected = theirs(x)
    assert expected.std() > 0.3  # far above the tolerance
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(features, hidden, rtol=0, atol=1e-4)


def test_response_normalization_equals_torchs_within_each_tower() -> None:
    x = torch.randn(2, 96, 5, 5, generator=torch.Generator().manual_seed(0)) * 300
    theirs = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
    expected = torch.cat([theirs(tower) for tower in x.chunk(2, 1)], 1)
    assert not torch.allclose(expected, theirs(x), rtol=1e-2)  # the split into towers matters
    ours = LocalResponseNorm(96, num_towers=2)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-4)


def test_response_normalization_spans_five_maps_and_never_crosses_the_towers() -> None:
    x = torch.full((1, 96, 1, 1), 100.0)
    louder = x.clone()
    louder[0, 47] = 1000  # the first tower's last map
    norm = LocalResponseNorm(96, num_towers=2)
    change = (norm(louder) - norm(x)).flatten()
    assert change.nonzero().flatten().tolist() == [45, 46, 47]


@pytest.mark.parametrize(
    ("earlier", "later", "crosses"),
    [
        ("conv1", "conv2", False),
        ("conv2", "conv3", True),
        ("conv3", "conv4", False),
        ("conv4", "conv5", False),
    ],
)
def test_only_conv3_reads_both_towers(earlier: str, later: str, crosses: bool) -> None:
    network = AlexNet(architecture())
    output = output_of_layer(network, later, random_images(67))
    first_tower = output[:, : output.shape[1] // 2]
    weight = network.get_parameter(f"convolutions.{earlier}.weight")
    (gradient,) = torch.autograd.grad(first_tower.square().sum(), weight)
    first, second = gradient.abs().sum((1, 2, 3)).chunk(2)
    assert first.max() > 0
    assert bool(second.max() > 0) == crosses


@pytest.mark.parametrize("layout", ["paper", "torchvision"])
def test_dropout_acts_in_training_only(layout: str) -> None:
    network = AlexNet(architecture(layout=layout))
    images = random_images(67)
    with torch.no_grad():
        network.eval()
        assert torch.equal(network(images)[0], network(images)[0])
        network.train()
        assert not torch.equal(network(images)[0], network(images)[0])


def test_without_dropout_training_and_evaluation_agree() -> None:
    network = AlexNet(architecture(dropout=0.0))
    images = random_images(67)
    with torch.no_grad():
        assert torch.equal(network.train()(images)[0], network.eval()(images)[0])


def test_the_features_are_fc7s_outputs_before_dropout() -> None:
    network = AlexNet(architecture()).train()
    inputs_of_fc8: list[Tensor] = []
    network.get_submodule("output.fc8").register_forward_pre_hook(
        lambda _, inputs: inputs_of_fc8.append(inputs[0])
    )
    with torch.no_grad():
        _, features = network(random_images(67))
    (dropped_out,) = inputs_of_fc8
    is_kept, is_active = dropped_out != 0, features != 0
    assert 0.4 < float(is_kept[is_active].float().mean()) < 0.6
    # Dropout doubles the kept outputs in training; the paper halves all outputs at test time.
    torch.testing.assert_close(dropped_out[is_kept], 2 * features[is_kept])


def test_the_papers_initialization_has_deviation_0_01_and_its_biases_of_one() -> None:
    network = AlexNet(architecture())
    initialize(network, "paper", seed=0)
    biases = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.03), name
            assert float(module.weight.detach().mean()) == pytest.approx(0, abs=3e-4), name
            assert module.bias is not None
            (biases[name.rpartition(".")[2]],) = module.bias.unique().tolist()
    assert biases == {
        "conv1": 0,
        "conv2": 1,
        "conv3": 0,
        "conv4": 1,
        "conv5": 1,
        "fc6": 1,
        "fc7": 1,
        "fc8": 0,
    }


@pytest.mark.parametrize("scheme", ["paper", "kaiming"])
def test_the_first_weights_depend_on_the_seed_only(scheme: Any) -> None:
    weights = []
    network = AlexNet(architecture())
    for seed in (5, 6, 5):
        initialize(network, scheme, seed)
        first_values = [parameter.flatten()[:1000] for parameter in network.parameters()]
        weights.append(torch.cat(first_values))
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])


@pytest.fixture(scope="module")
def canvases() -> Pixels:
    """Reddish canvases with a gradient from left to right, more than one batch of sums."""
    side = canvas_px(67)
    noise = np.random.default_rng(0).integers(0, 60, (300, side, side, 3))
    return np.asarray(noise + np.array([150, 50, 20]) + np.arange(side)[:, None] // 2, np.uint8)


def test_the_papers_mean_is_the_mean_image_of_the_training_squares(canvases: Pixels) -> None:
    network = AlexNet(architecture(mean="image"))
    network.set_preprocessing(measure_pixels(canvases, 67))
    np.testing.assert_allclose(network.mean.numpy(), centre(canvases, 67).mean(0), atol=1e-3)
    assert network.std.unique().tolist() == [1]


def test_with_channel_means_the_training_squares_get_mean_zero_and_variance_one(
    canvases: Pixels,
) -> None:
    network = AlexNet(architecture(mean="channel"))
    network.set_preprocessing(measure_pixels(canvases, 67))
    x = preprocessed(network, torch.from_numpy(centre(canvases, 67)))
    np.testing.assert_allclose(x.mean((0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(x.std((0, 2, 3)), 1, atol=1e-3)


def test_a_blank_channel_is_not_divided_by_zero() -> None:
    network = AlexNet(architecture(mean="channel"))
    black = np.zeros((2, canvas_px(67), canvas_px(67), 3), np.uint8)
    network.set_preprocessing(measure_pixels(black, 67))
    assert network.std.flatten().tolist() == [1, 1, 1]


def test_one_tower_of_the_same_widths_has_the_known_number_of_parameters() -> None:
    network = shapes_only(num_classes=1000, image_size=224, num_towers=1)
    assert num_parameters(network) == 62_378_344
    assert {module.groups for module in network.modules() if isinstance(module, nn.Conv2d)} == {1}


@pytest.mark.parametrize("layout", ["paper", "torchvision"])
@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_network_works_without_any_middle_convolution(layout: str, number: int) -> None:
    network = AlexNet(architecture(layout=layout, without_convolution=number)).eval()
    names = convolution_names(network)
    assert f"conv{number}" not in names
    assert {"conv1", "pool1", "pool2", "pool5"} <= set(names)
    logits, features = network(random_images(67))
    assert (logits.shape, features.shape) == ((2, 3), (2, 4096))


NUM_SIXTH_PARAMETERS = {"paper": 256 * 128 * 9 + 256, "torchvision": 256 * 256 * 9 + 256}
"""Number of parameters of the sixth convolution: 3x3 over half of pool5's maps, or over all."""


@pytest.mark.parametrize("layout", ["paper", "torchvision"])
def test_the_sixth_convolution_has_the_shape_of_the_fifth_and_nothing_else_changes(
    layout: str,
) -> None:
    sizes: dict[str, Any] = {
        "layout": layout,
        "normalization": "none",
        "num_classes": 1000,
        "image_size": 224,
    }
    plain, sixth = shapes_only(**sizes), shapes_only(**sizes, has_sixth_convolution=True)
    assert num_parameters(sixth) - num_parameters(plain) == NUM_SIXTH_PARAMETERS[layout]
    shapes = {name: parameter.shape for name, parameter in sixth.named_parameters()}
    assert shapes.pop("convolutions.conv6.bias") == (256,)
    num_inputs = 128 if layout == "paper" else 256
    assert shapes.pop("convolutions.conv6.weight") == (256, num_inputs, 3, 3)
    assert shapes == {name: parameter.shape for name, parameter in plain.named_parameters()}


def test_the_sixth_convolution_reads_pool5_and_is_not_pooled() -> None:
    for normalization, norm in (("response", []), ("batch", ["norm6"])):
        network = shapes_only(
            image_size=224, normalization=normalization, has_sixth_convolution=True
        )
        names = convolution_names(network)
        assert names[names.index("pool5") :] == ["pool5", "conv6", *norm, "activation6", "flatten"]
        x = torch.empty(1, 3, 224, 224, device="meta")
        assert network.convolutions(x).shape == (1, 9216)


def test_without_the_fifth_convolution_the_sixth_reads_the_maps_of_the_fourth() -> None:
    network = AlexNet(architecture(has_sixth_convolution=True, without_convolution=5)).eval()
    names = convolution_names(network)
    assert "conv5" not in names
    assert names[-5:] == ["activation4", "pool5", "conv6", "activation6", "flatten"]
    assert network.get_parameter("convolutions.conv6.weight").shape == (256, 384 // 2, 3, 3)
    assert network.get_parameter("hidden.fc6.weight").shape == (4096, 256)
    with torch.inference_mode():
        logits, features = network(random_images(67))
    assert (logits.shape, features.shape) == ((2, 3), (2, 4096))


@pytest.mark.parametrize("layout", ["paper", "torchvision"])
@pytest.mark.parametrize("size", [67, 128])
def test_a_network_with_a_sixth_convolution_works_at_any_size(layout: str, size: int) -> None:
    sixth = architecture(layout=layout, image_size=size, has_sixth_convolution=True)
    network = AlexNet(sixth).eval()
    with torch.inference_mode():
        logits, features = network(random_images(size))
    assert (logits.shape, features.shape) == ((2, 3), (2, 4096))


def test_the_papers_initialization_gives_the_sixth_convolution_the_bias_of_the_fifth() -> None:
    network = AlexNet(architecture(has_sixth_convolution=True))
    initialize(network, "paper", seed=0)
    assert network.get_parameter("convolutions.conv6.bias").unique().tolist() == [1]
    deviation = float(network.get_parameter("convolutions.conv6.weight").detach().std())
    assert deviation == pytest.approx(0.01, rel=0.03)


def test_plain_pooling_has_windows_of_two_and_the_same_sizes_at_224_pixels() -> None:
    plain = shapes_only(image_size=224, pooling="plain")
    overlapping = shapes_only(image_size=224, pooling="overlapping")
    pools = [module for module in plain.modules() if isinstance(module, nn.MaxPool2d)]
    assert [pool.kernel_size for pool in pools] == [2, 2, 2]
    assert num_parameters(plain) == num_parameters(overlapping)
    assert AlexNet(architecture(pooling="plain"))(random_images(67))[1].shape == (2, 4096)


def test_tanh_replaces_every_relu() -> None:
    network = AlexNet(architecture(activation="tanh")).eval()
    initialize(network, "paper", seed=0)
    assert sum(isinstance(module, nn.Tanh) for module in network.modules()) == 7
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    features = network(random_images(67))[1]
    assert float(features.detach().abs().max()) <= 1
