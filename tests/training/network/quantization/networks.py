"""Small networks with random weights, as ONNX files, and images for them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.data.images import Pixels
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import write_onnx
from training.network.onnx_session import open_session
from training.network.quantization.agreement import Answers

SIZE = 67
NUM_CLASSES = 5


def random_network(**changes: Any) -> AlexNet:
    """A network for 67 pixels whose biases, deviations and batch statistics all matter."""
    settings: dict[str, Any] = {
        "layout": "paper",
        "normalization": "none",
        "num_classes": NUM_CLASSES,
        "image_size": SIZE,
    }
    network = AlexNet(Architecture(**settings | changes))
    initialize(network, "kaiming", seed=0)
    with torch.no_grad():
        network.mean.copy_(torch.tensor([120.0, 115.0, 100.0]))
        network.std.copy_(torch.tensor([60.0, 65.0, 70.0]))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.normal_(0, 0.1)
    return network.eval()


def write_random_network(file: Path, **changes: Any) -> Path:
    """Write the ONNX file of a random network."""
    write_onnx(random_network(**changes), file, "an id")
    return file


def made_up_squares(count: int, seed: int = 0, size: int = SIZE) -> Pixels:
    """Images (count, size, size, 3) of coarse spots with fine noise."""
    random = np.random.default_rng(seed)
    spots = random.integers(0, 256, (count, 5, 5, 3)).repeat(14, 1).repeat(14, 2)
    noisy = spots[:, :size, :size] + random.normal(0, 10, (count, size, size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def answers_of(network: Path | bytes, squares: Pixels) -> Answers:
    """The answers of an ONNX file or of its bytes."""
    return Answers.of(open_session(network), squares)


def relative_error(features: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The length of the differences, as a share of the length of the expected values."""
    return float(np.linalg.norm(features - expected) / np.linalg.norm(expected))
