"""Files in the layout of torchvision's alexnet, with made-up weights."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from training.network.alexnet import AlexNet, Architecture, initialize

LAYERS = {
    "convolutions.conv1": "features.0",
    "convolutions.conv2": "features.3",
    "convolutions.conv3": "features.6",
    "convolutions.conv4": "features.8",
    "convolutions.conv5": "features.10",
    "hidden.fc6": "classifier.1",
    "hidden.fc7": "classifier.4",
    "output.fc8": "classifier.6",
}
"""torchvision's names of AlexNet's layers."""


def write_torchvision_weights(folder: Path, *, num_classes: int) -> tuple[Path, dict[str, Tensor]]:
    """Write a .pth file whose name contains the start of its SHA-256, as torchvision's does.

    Returns the file, and the weights under this project's names. The file has 244 MB unless the
    test sets training.network.alexnet.NUM_FEATURES to a small number.
    """
    architecture = Architecture(
        layout="torchvision", normalization="none", num_classes=num_classes, image_size=224
    )
    network = AlexNet(architecture)
    initialize(network, "kaiming", 5)
    weights = {
        f"{layer}.{kind}": network.get_parameter(f"{layer}.{kind}").detach()
        for layer in LAYERS
        for kind in ("weight", "bias")
    }
    state = {
        f"{LAYERS[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in weights.items()
    }
    unnamed = folder / "alexnet.pth"
    torch.save(state, unnamed)
    sha256 = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    return unnamed.rename(folder / f"alexnet-{sha256[:8]}.pth"), weights
