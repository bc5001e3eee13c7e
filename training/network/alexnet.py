"""The paper's AlexNet and torchvision's variant. They map uint8 squares to logits and features.

The `paper` layout follows two sources. The first is Krizhevsky, Sutskever and Hinton 2012, called
"the paper" below. The second is the published code of the paper (configuration 145). If the two
disagree about a size, we follow the code. Section numbers refer to the paper. The `torchvision`
layout follows Krizhevsky 2014, "One weird trick", as implemented in torchvision.
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
    """The structure of a network; saved in model.json."""

    layout: Literal["paper", "torchvision"]
    normalization: Literal["response", "batch", "none"]
    num_classes: int
    image_size: int
    dropout: float = 0.5
    mean: Literal["image", "channel"] = "channel"
    activation: Literal["relu", "tanh"] = "relu"
    pooling: Literal["overlapping", "plain"] = "overlapping"
    num_towers: int = 2
    """For the `paper` layout only. With 1, the layers have the same widths but no groups."""
    kernels: Literal["all", "half"] = "all"
    """With `half`, conv1 to conv4 have half of their kernels, as on one of the paper's GPUs. conv5
    has all kernels (section 3.2, footnote 1)."""
    without_convolution: int = 0
    """Number of the convolution that is left out, 2 to 5. Its activation and normalisation are left
    out too, but its pooling stays. With 0, no convolution is left out."""
    has_sixth_convolution: bool = False
    """Whether a sixth convolution with conv5's shape follows pool5 (section 6.1)."""
    response_k: float = 2.0
    """The constant k of the response normalisation: 2 in the paper, 1 in Caffe."""
    response_crosses_towers: bool = False
    """Whether the response normalisation sums across the border between the two towers. It does
    so in Caffe, but not in the paper."""


class AlexNet(nn.Module):
    """uint8 RGB squares (B, S, S, 3) -> logits (B, num_classes) and features (B, 4096).

    The features are fc7's outputs after the activation and before dropout. The preprocessing
    consists of the buffers `mean` and `std`, in units of 0..255. They are saved with the weights.
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
        x = preprocess(images, self.mean, self.std)  # (B, S, S, 3) -> (B, 3, S, S)
        x = self.convolutions(x)  # (B, 9216) for S = 224
        features = self.hidden(x)  # (B, 4096)
        logits = self.output(features)  # (B, num_classes)
        return logits, features

    def set_preprocessing(self, statistics: PixelStatistics) -> None:
        """Use the training set's mean image (section 2), or its channel means and deviations.

        `architecture.mean` says which of the two is used.
        """
        if self.architecture.mean == "image":
            self.mean.copy_(torch.from_numpy(statistics.mean_image))
        else:
            self.mean.copy_(torch.from_numpy(statistics.mean))
            self.std.copy_(torch.from_numpy(statistics.deviation))


def preprocess(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Squares (B, S, S, 3) in 0..255 -> input of conv1 (B, 3, S, S), channels last in memory."""
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


_LAYERS_WITH_BIAS_ONE = ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
"""Section 5: biases of 1 give the ReLUs positive inputs early in training. The optional conv6 is
treated like conv5."""


def initialize(network: AlexNet, scheme: Literal["paper", "kaiming"], seed: int) -> None:
    """Set random initial weights. The same seed gives the same weights on every device."""
    torch.manual_seed(seed)
    for path, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        name = path.rpartition(".")[2]
        if scheme == "paper":
            nn.init.normal_(layer.weight, std=0.01)
        else:
            nn.init.kaiming_normal_(
                layer.weight, nonlinearity="linear" if name == "fc8" else "relu"
            )
        if layer.bias is not None:
            is_one = scheme == "paper" and name in _LAYERS_WITH_BIAS_ONE
            nn.init.constant_(layer.bias, 1.0 if is_one else 0.0)


class LocalResponseNorm(nn.Module):
    """b = a / (k + alpha / n * sum of a^2 over n neighbouring maps)^beta, within each tower.

    Section 3.3. alpha is divided by n, as in the published code and in torch.nn.LocalResponseNorm;
    the printed formula does not divide. The result equals that of torch's module up to rounding.
    The sum is computed as a 1x1 convolution with a banded matrix, and y^0.75 is computed from two
    square roots. Both are fast in ONNX Runtime.
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
        sums = nn.functional.conv2d(x * x, self.band, groups=self.num_towers)  # (B, C, H, W)
        root = (self.k + sums).sqrt()
        return x / (root * root.sqrt())  # (B, C, H, W)


@dataclass(frozen=True)
class _Layer:
    """One convolution, and whether a max pool of stride 2 follows it."""

    maps: int
    kernel_px: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    is_pooled: bool = False


# The first shape of a line is the shape after the convolution, for 224 pixels. If a pooling
# follows, the second shape is the shape after the pooling.
_LAYOUTS = {
    # The two towers are grouped convolutions. conv3 reads both towers (section 3.5, figure 2).
    "paper": (
        _Layer(96, 11, stride=4, is_pooled=True),  # (B, 96, 55, 55), (B, 96, 27, 27)
        _Layer(256, 5, padding=2, groups=2, is_pooled=True),  # (B, 256, 27, 27), (B, 256, 13, 13)
        _Layer(384, 3, padding=1),  # (B, 384, 13, 13)
        _Layer(384, 3, padding=1, groups=2),  # (B, 384, 13, 13)
        _Layer(256, 3, padding=1, groups=2, is_pooled=True),  # (B, 256, 13, 13), (B, 256, 6, 6)
    ),
    # This layout has one tower. The layers have torchvision's order, so torchvision's weights can
    # be copied one by one.
    "torchvision": (
        _Layer(64, 11, stride=4, padding=2, is_pooled=True),  # (B, 64, 55, 55), (B, 64, 27, 27)
        _Layer(192, 5, padding=2, is_pooled=True),  # (B, 192, 27, 27), (B, 192, 13, 13)
        _Layer(384, 3, padding=1),  # (B, 384, 13, 13)
        _Layer(256, 3, padding=1),  # (B, 256, 13, 13)
        _Layer(256, 3, padding=1, is_pooled=True),  # (B, 256, 13, 13), (B, 256, 6, 6)
    ),
}


def _layers(architecture: Architecture) -> list[_Layer]:
    """All convolutions in order, including the one that the architecture leaves out."""
    layers = list(_LAYOUTS[architecture.layout])
    if architecture.kernels == "half":
        layers = [replace(layer, maps=layer.maps // 2) for layer in layers[:-1]] + layers[-1:]
    if architecture.has_sixth_convolution:
        layers.append(replace(layers[-1], is_pooled=False))
    return layers


def _convolutions(architecture: Architecture) -> nn.Sequential:
    """Preprocessed images (B, 3, S, S) -> the last maps, flattened: (B, 9216) for S = 224."""
    is_paper = architecture.layout == "paper"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if is_paper:
        # The published code rounds the number of window positions up. For 224 pixels, the last
        # window of conv1 extends 3 pixels beyond the edge of the image.
        overhang = -(architecture.image_size - 11) % 4
        layers["overhang"] = nn.ZeroPad2d((0, overhang, 0, overhang))
    channels = 3
    for number, layer in enumerate(_layers(architecture), 1):
        if number != architecture.without_convolution:
            layers |= _convolution(architecture, layer, number, channels)
            channels = layer.maps
        if layer.is_pooled:
            layers[f"pool{number}"] = nn.MaxPool2d(_pool_px(architecture), 2)
    if not is_paper:
        layers["average"] = nn.AdaptiveAvgPool2d(6)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _convolution(
    architecture: Architecture, layer: _Layer, number: int, channels: int
) -> dict[str, nn.Module]:
    """One convolution with its activation and normalisation: (B, C, H, W) -> (B, maps, H', W')."""
    num_towers = architecture.num_towers if architecture.layout == "paper" else 1
    has_batch_norm = architecture.normalization == "batch"
    layers: dict[str, nn.Module] = {}
    layers[f"conv{number}"] = nn.Conv2d(
        channels,
        layer.maps,
        layer.kernel_px,
        layer.stride,
        layer.padding,
        groups=min(layer.groups, num_towers),
        bias=not has_batch_norm,
    )
    if has_batch_norm:
        layers[f"norm{number}"] = nn.BatchNorm2d(layer.maps)
    layers[f"activation{number}"] = _activation(architecture)
    if architecture.normalization == "response" and number <= 2:
        num_ranges = 1 if architecture.response_crosses_towers else num_towers
        norm = LocalResponseNorm(layer.maps, num_ranges, k=architecture.response_k)
        layers[f"norm{number}"] = norm
    return layers


def _hidden(architecture: Architecture) -> nn.Sequential:
    """The flattened maps, (B, 9216) for S = 224 -> the features (B, 4096).

    The paper applies dropout to the outputs of fc6 and fc7. torchvision applies it to their inputs.
    """
    is_paper = architecture.layout == "paper"
    side = _pool5_px(architecture) if is_paper else 6
    channels = _last_maps(architecture)
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
    """The features (B, 4096) -> logits, (B, num_classes)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if architecture.layout == "paper":
        layers["dropout7"] = nn.Dropout(architecture.dropout)
    layers["fc8"] = nn.Linear(NUM_FEATURES, architecture.num_classes)
    return nn.Sequential(layers)


def _activation(architecture: Architecture) -> nn.Module:
    return nn.ReLU(inplace=True) if architecture.activation == "relu" else nn.Tanh()


def _pool_px(architecture: Architecture) -> int:
    """Side of a pooling window. Windows of 3 with stride 2 overlap (section 3.4)."""
    return 3 if architecture.pooling == "overlapping" else 2


def _last_maps(architecture: Architecture) -> int:
    """Number of maps of the last convolution that is not left out. These maps enter fc6."""
    layers = _layers(architecture)
    return layers[-2 if architecture.without_convolution == len(layers) else -1].maps


def _pool5_px(architecture: Architecture) -> int:
    """Side of pool5's maps in the `paper` layout: 6 for 224 pixels, 3 for 128, 1 for 67."""
    side = 1 + math.ceil((architecture.image_size - 11) / 4)
    for _ in range(3):
        side = (side - _pool_px(architecture)) // 2 + 1
    return side
