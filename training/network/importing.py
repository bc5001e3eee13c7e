"""Other projects' AlexNet weights -> a model directory: torchvision's `alexnet`, and Caffe's `bvlc_alexnet`.

Both are numbers and names only: a .pth is read with `weights_only`, a .caffemodel as a protocol buffer, so no file can run code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.errors import UserError
from training.network.alexnet import AlexNet, Architecture
from training.network.caffe import CaffeError, read_blob, read_caffemodel
from training.network.export import save_model
from training.network.model import ModelCard

TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""Of Caffe's ILSVRC-2012 mean image, over its pixels."""

LAYERS = (
    *(f"convolutions.conv{number}" for number in range(1, 6)),
    "hidden.fc6",
    "hidden.fc7",
    "output.fc8",
)
_TORCHVISION_LAYERS = (
    "features.0",
    "features.3",
    "features.6",
    "features.8",
    "features.10",
    "classifier.1",
    "classifier.4",
    "classifier.6",
)
_CAFFE_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


class ImportingError(UserError):
    """A file that holds no AlexNet that we know."""


def import_weights(
    weights: Path, out: Path, *, mean: Path | None = None, class_names: Sequence[str] | None = None
) -> ModelCard:
    """Makes a model directory of a .pth, .safetensors or .caffemodel file; raises UserError.

    `mean` is a Caffe mean image, (3, H, W) BGR as .npy or .binaryproto, whose centre is taken; without it, ILSVRC-2012's channel means.
    `class_names` are in the order of the outputs; without them, ImageNet's for 1000 classes, and numbers otherwise.
    """
    if out.exists() and any(out.iterdir()):
        raise ImportingError(
            f"{out} is not empty; pass another --out, or remove that directory first"
        )
    if not weights.is_file():
        raise ImportingError(
            f"{weights} does not exist; pass a .pth, .safetensors or .caffemodel file"
        )
    if weights.suffix == ".caffemodel":
        network, source = _from_caffe(weights, mean), "bvlc_alexnet"
    elif weights.suffix in (".pth", ".pt", ".safetensors"):
        if mean is not None:
            raise ImportingError(
                "--mean belongs to a .caffemodel; torchvision's weights come with the channel means they were trained with"
            )
        network, source = _from_torchvision(weights), "torchvision alexnet"
    else:
        raise ImportingError(f"{weights} must end in .pth, .pt, .safetensors or .caffemodel")
    names = (
        tuple(class_names)
        if class_names is not None
        else _default_names(network.architecture.num_classes)
    )
    if len(names) != network.architecture.num_classes:
        raise ImportingError(
            f"{weights} has {network.architecture.num_classes} classes but {len(names)} names were given; pass one a line"
        )
    data = {"name": f"{source}, imported from {weights.name}"}
    return save_model(network.eval(), out, class_names=names, recipe={}, data=data, metrics={})


def _from_torchvision(file: Path) -> AlexNet:
    state = _read_state(file)
    wanted = [f"{layer}.{kind}" for layer in _TORCHVISION_LAYERS for kind in ("weight", "bias")]
    if sorted(state) != sorted(wanted):
        odd = sorted(set(state) ^ set(wanted))
        raise ImportingError(
            f"{file} is no state of torchvision's alexnet: {', '.join(odd[:4])} is missing or unexpected"
        )
    tensors = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in zip(LAYERS, _TORCHVISION_LAYERS, strict=True)
        for kind in ("weight", "bias")
    }
    network = _network(
        tensors, file, layout="torchvision", normalization="none", image_size=224, mean="channel"
    )
    network.mean.copy_(255 * torch.tensor(TORCHVISION_MEAN))
    network.std.copy_(255 * torch.tensor(TORCHVISION_STD))
    return network


def _from_caffe(file: Path, mean: Path | None) -> AlexNet:
    layers = read_caffemodel(file)
    if missing := [name for name in _CAFFE_LAYERS if len(layers.get(name, ())) != 2]:
        raise ImportingError(
            f"{file} is no bvlc_alexnet: it has no weights and biases for {', '.join(missing)}"
        )
    _check_order(list(layers), file)
    tensors = {}
    for ours, theirs in zip(LAYERS, _CAFFE_LAYERS, strict=True):
        weight, bias = (torch.from_numpy(blob) for blob in layers[theirs])
        tensors[f"{ours}.weight"] = (
            weight.squeeze(0).squeeze(0) if theirs.startswith("fc") and weight.ndim == 4 else weight
        )
        tensors[f"{ours}.bias"] = bias.flatten()
    first = f"{LAYERS[0]}.weight"
    tensors[first] = tensors[first].flip(1)  # Caffe's channels are blue, green, red
    network = _network(
        tensors,
        file,
        layout="paper",
        normalization="response",
        image_size=227,
        mean="image",
        response_k=1.0,
        response_crosses_towers=True,
    )
    network.mean.copy_(torch.from_numpy(_mean_image(mean, network.architecture.image_size)))
    return network


def _check_order(names: Sequence[str], file: Path) -> None:
    """Refuses bvlc_reference_caffenet, whose weights have the same names and shapes but whose LRN follows the pooling."""
    for number in (1, 2):
        pool, norm = f"pool{number}", f"norm{number}"
        if pool in names and norm in names and names.index(pool) < names.index(norm):
            raise ImportingError(
                f"{file} is no bvlc_alexnet: its {pool} comes before {norm}, as in bvlc_reference_caffenet; pass bvlc_alexnet.caffemodel"
            )


def _network(tensors: dict[str, Tensor], file: Path, **architecture: Any) -> AlexNet:
    num_classes = len(tensors["output.fc8.bias"])
    with torch.device("meta"):  # the shapes, without drawing numbers that are then thrown away
        wanted = AlexNet(Architecture(num_classes=num_classes, **architecture)).state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ImportingError(
                f"{file}: {name} must have the shape {tuple(wanted[name].shape)} but has {tuple(tensor.shape)}"
            )
    network = AlexNet(Architecture(num_classes=num_classes, **architecture))
    network.load_state_dict(tensors, strict=False)  # mean and std are set by the caller
    return network


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        state = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # each library raises its own, over several lines
        raise ImportingError(
            f"{file} cannot be read as plain weights; pass a state dict saved by torch.save, or a .safetensors file"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(tensor, Tensor) for tensor in state.values()
    ):
        raise ImportingError(
            f"{file} holds no plain state dict; save model.state_dict() and pass that"
        )
    return {name: tensor.float() for name, tensor in state.items()}


def _mean_image(file: Path | None, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(size, size, 3) RGB, from a (3, H, W) BGR mean image's centre."""
    if file is None:
        return np.broadcast_to(np.array(CAFFE_MEAN_BGR[::-1], np.float32), (size, size, 3)).copy()
    try:
        mean = np.load(file, allow_pickle=False) if file.suffix == ".npy" else read_blob(file)
    except (OSError, ValueError, CaffeError) as error:
        raise ImportingError(
            f"{file} cannot be read as a mean image ({error}); pass a .npy or .binaryproto file"
        ) from error
    mean = np.squeeze(mean)
    if mean.ndim != 3 or mean.shape[0] != 3 or min(mean.shape[1:]) < size:
        raise ImportingError(
            f"{file}: the mean image must have the shape (3, H, W) with H and W of {size} or more, but has {mean.shape}"
        )
    top, left = ((side - size) // 2 for side in mean.shape[1:])
    return np.ascontiguousarray(
        mean[::-1, top : top + size, left : left + size].transpose(1, 2, 0), np.float32
    )


def _default_names(count: int) -> tuple[str, ...]:
    """ImageNet's names in the order of their WordNet ids, which torchvision and Caffe share, for 1000 classes."""
    if count == 1000:
        from torchvision.models import AlexNet_Weights

        names: list[str] = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
        # Two are twice in the list: cranes are birds and machines, maillots swimsuits and tights.
        return tuple(
            name if names.count(name) == 1 else f"{name} ({number})"
            for number, name in enumerate(names)
        )
    return tuple(map(str, range(count)))
