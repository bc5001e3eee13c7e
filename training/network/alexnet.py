"""The networks: the paper's AlexNet and torchvision's variant, from uint8 squares to `logits` and `features` in one forward pass.

Sources: Krizhevsky, Sutskever and Hinton 2012 and its published code (configuration 145) for `paper`; Krizhevsky 2014, "One weird
trick", as torchvision has it, for `torchvision`. Where the two say different things about a size, the published code decides.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from training.network.model import NUM_FEATURES
from training.network.preprocessing import PixelStatistics


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What determines the shapes of a network's weights; saved in model.json."""

    layout: Literal["paper", "torchvision"]
    normalization: Literal["response", "batch", "none"]
    num_classes: int
    image_size: int
    dropout: float = 0.5
    mean: Literal["image", "channel"] = "channel"
    activation: Literal["relu", "tanh"] = "relu"
    pooling: Literal["overlapping", "plain"] = "overlapping"
    num_towers: int = 2
    """Of the `paper` layout: 2, or 1 for the same widths without groups."""
    kernels: Literal["all", "half"] = "all"
    """`half`: conv1 to conv4 have half as many, as one of the paper's GPUs holds, and conv5 all (section 3.2, footnote 1)."""
    without_convolution: int = 0
    """The middle convolution, 2 to 5, that is left out with its nonlinearity and normalisation, but not its pooling; 0 for none."""
    has_sixth_convolution: bool = False
    """Whether one more convolution, of conv5's shape, follows pool5 (section 6.1)."""
    response_k: float = 2.0
    """The constant of the response normalisation: 2 in the paper, 1 in Caffe."""
    response_crosses_towers: bool = False
    """Whether the response normalisation sums over maps of both towers at their border: Caffe's does, the paper's does not."""


class AlexNet(nn.Module):
    """uint8 squares (B, S, S, 3), RGB -> logits (B, num_classes) and features (B, 4096): fc7 after its ReLU, before dropout.

    The buffers `mean` and `std` (of pixels in 0..255) do the preprocessing, so that it travels with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        size = architecture.image_size
        mean_shape = (size, size, 3) if architecture.mean == "image" else (1, 1, 3)
        self.register_buffer("mean", torch.full(mean_shape, 127.5))
        self.register_buffer("std", torch.ones(1, 1, 3))
        self.convolutions = _convolutions(architecture)
        self.hidden = _hidden(architecture)
        self.output = _output(architecture)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.hidden(self.convolutions(preprocess(images, self.mean, self.std)))
        return self.output(features), features

    def set_preprocessing(self, statistics: PixelStatistics) -> None:
        """Subtracts the training set's mean image (section 2), or its channels' means and divides by their deviations."""
        if self.architecture.mean == "image":
            self.mean.copy_(torch.from_numpy(statistics.mean_image))
        else:
            self.mean.copy_(torch.from_numpy(statistics.mean))
            self.std.copy_(torch.from_numpy(statistics.deviation))


def preprocess(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Squares (B, S, S, 3) in 0..255 -> what the first convolution reads, (B, 3, S, S), channels last in memory as they stand."""
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


class LocalResponseNorm(nn.Module):
    """b = a / (k + alpha / n * sum of a^2 over n neighbouring maps)^beta, within each tower (section 3.3).

    alpha is divided by n, as the published code and torch.nn.LocalResponseNorm do; the formula as printed is not. Equal to torch's
    within rounding, but the sum is a banded 1x1 convolution and y^0.75 two square roots, which keeps ONNX Runtime fast.
    """

    band: Tensor

    def __init__(
        self, channels: int, num_towers: int, *, n: int = 5, alpha: float = 1e-4, k: float = 2.0
    ):
        super().__init__()
        self.k, self.num_towers = k, num_towers
        tower = torch.arange(channels // num_towers)
        neighbours = (tower[:, None] - tower[None, :]).abs() <= n // 2
        band = neighbours.float().repeat(num_towers, 1)[:, :, None, None] * (alpha / n)
        self.register_buffer("band", band, persistent=False)  # (C, C / num_towers, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.k + nn.functional.conv2d(x * x, self.band, groups=self.num_towers)
        root = scale.sqrt()
        return x / (root * root.sqrt())


@dataclass(frozen=True)
class _Layer:
    """One convolution and what follows it; `is_pooled`: a 3x3 max pool of stride 2, overlapping (section 3.4)."""

    maps: int
    kernel_px: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    is_pooled: bool = False


_LAYOUTS = {
    # Two towers side by side as grouped convolutions; conv3 reads both (section 3.5, figure 2).
    "paper": (
        _Layer(96, 11, stride=4, is_pooled=True),
        _Layer(256, 5, padding=2, groups=2, is_pooled=True),
        _Layer(384, 3, padding=1),
        _Layer(384, 3, padding=1, groups=2),
        _Layer(256, 3, padding=1, groups=2, is_pooled=True),
    ),
    # One tower; layer for layer, so that torchvision's parameters in order are ours.
    "torchvision": (
        _Layer(64, 11, stride=4, padding=2, is_pooled=True),
        _Layer(192, 5, padding=2, is_pooled=True),
        _Layer(384, 3, padding=1),
        _Layer(256, 3, padding=1),
        _Layer(256, 3, padding=1, is_pooled=True),
    ),
}


def _layers(architecture: Architecture) -> list[_Layer]:
    """The convolutions in order, with the one that is left out."""
    layers = list(_LAYOUTS[architecture.layout])
    if architecture.kernels == "half":
        layers = [replace(layer, maps=layer.maps // 2) for layer in layers[:-1]] + layers[-1:]
    if architecture.has_sixth_convolution:
        layers.append(replace(layers[-1], is_pooled=False))
    return layers


def _convolutions(architecture: Architecture) -> nn.Sequential:
    """Preprocessed images (B, 3, S, S) -> pool5, or the sixth convolution on it, flattened: (B, 9216) for 224 pixels."""
    is_paper = architecture.layout == "paper"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if is_paper:  # the published code counts positions with ceil: for 224 the last window hangs 3 pixels over the image
        overhang = -(architecture.image_size - 11) % 4
        layers["overhang"] = nn.ZeroPad2d((0, overhang, 0, overhang))
    channels = 3
    num_towers = architecture.num_towers if is_paper else 1
    has_batch_norm = architecture.normalization == "batch"
    for number, layer in enumerate(_layers(architecture), 1):
        if number != architecture.without_convolution:
            groups = min(layer.groups, num_towers)
            layers[f"conv{number}"] = nn.Conv2d(
                channels,
                layer.maps,
                layer.kernel_px,
                layer.stride,
                layer.padding,
                groups=groups,
                bias=not has_batch_norm,
            )
            channels = layer.maps
            if has_batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm2d(channels)
            layers[f"activation{number}"] = _activation(architecture)
            if architecture.normalization == "response" and number <= 2:
                num_ranges = 1 if architecture.response_crosses_towers else num_towers
                layers[f"norm{number}"] = LocalResponseNorm(
                    channels, num_ranges, k=architecture.response_k
                )
        if layer.is_pooled:
            layers[f"pool{number}"] = nn.MaxPool2d(_pool_px(architecture), 2)
    if not is_paper:
        layers["average"] = nn.AdaptiveAvgPool2d(6)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _hidden(architecture: Architecture) -> nn.Sequential:
    """pool5 -> the features, (B, 4096). The paper drops out what leaves fc6 and fc7, torchvision what enters fc6 and fc7."""
    is_paper = architecture.layout == "paper"
    side = _pool5_px(architecture) if is_paper else 6
    channels = _pool5_maps(architecture)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if not is_paper:
        layers["dropout5"] = nn.Dropout(architecture.dropout)
    layers["fc6"] = nn.Linear(channels * side**2, NUM_FEATURES)
    layers["activation6"] = _activation(architecture)
    layers["dropout6"] = nn.Dropout(architecture.dropout)
    layers["fc7"] = nn.Linear(NUM_FEATURES, NUM_FEATURES)
    layers["activation7"] = _activation(architecture)
    return nn.Sequential(layers)


def _output(architecture: Architecture) -> nn.Sequential:
    """The features -> logits, (B, num_classes)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if architecture.layout == "paper":
        layers["dropout7"] = nn.Dropout(architecture.dropout)
    layers["fc8"] = nn.Linear(NUM_FEATURES, architecture.num_classes)
    return nn.Sequential(layers)


def _activation(architecture: Architecture) -> nn.Module:
    return nn.ReLU(inplace=True) if architecture.activation == "relu" else nn.Tanh()


def _pool_px(architecture: Architecture) -> int:
    return 3 if architecture.pooling == "overlapping" else 2


def _pool5_maps(architecture: Architecture) -> int:
    """The number of maps that reach fc6: those of the last convolution that is there."""
    layers = _layers(architecture)
    return layers[-2 if architecture.without_convolution == len(layers) else -1].maps


def _pool5_px(architecture: Architecture) -> int:
    """The side of the paper's pool5: 6 for 224 pixels, 3 for 128, 1 for 67."""
    side = 1 + math.ceil((architecture.image_size - 11) / 4)
    for _ in range(3):
        side = (side - _pool_px(architecture)) // 2 + 1
    return side


def initialize(network: AlexNet, scheme: Literal["paper", "kaiming"], seed: int) -> None:
    """Draws the weights; the same seed gives the same ones on every device."""
    torch.manual_seed(seed)
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if (
            scheme == "paper"
        ):  # section 5: bias 1 where it feeds ReLUs with positive inputs early on
            nn.init.normal_(module.weight, std=0.01)
            bias = (
                1.0
                if any(
                    layer in name for layer in ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
                )
                else 0.0
            )
        else:
            nn.init.kaiming_normal_(
                module.weight, nonlinearity="relu" if "fc8" not in name else "linear"
            )
            bias = 0.0
        if module.bias is not None:
            nn.init.constant_(module.bias, bias)


def num_parameters(network: nn.Module) -> int:
    """Trained numbers, buffers not counted: 60,965,224 for the paper's network with 1000 classes."""
    return sum(parameter.numel() for parameter in network.parameters())
