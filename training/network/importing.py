"""Import AlexNet weights from other projects: torchvision's `alexnet` and Caffe's `bvlc_alexnet`.

No imported file can run code: a .pth is read with `weights_only`, a .caffemodel as a protocol
buffer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.errors import UserError
from training.network.alexnet import AlexNet, Architecture
from training.network.caffe import CaffeError, read_blob, read_caffemodel
from training.network.export import save_model
from training.network.model import IMAGENET, ModelCard
from training.network.pretrained import TORCH_SUFFIXES, weights_file

TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""The channel means of Caffe's ILSVRC-2012 mean image."""
NUM_IMAGENET_CLASSES = 1000

LAYERS = (
    *(f"convolutions.conv{number}" for number in range(1, 6)),
    "hidden.fc6",
    "hidden.fc7",
    "output.fc8",
)
"""AlexNet's layers with weights. The two lists below name the same layers in the same order."""
_TORCHVISION_LAYERS = (
    *(f"features.{number}" for number in (0, 3, 6, 8, 10)),
    *(f"classifier.{number}" for number in (1, 4, 6)),
)
_CAFFE_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


class ImportingError(UserError):
    """The weights cannot be imported."""


def import_weights(
    weights: str | Path,
    out: Path,
    *,
    mean: Path | None = None,
    class_names: Sequence[str] | None = None,
) -> ModelCard:
    """Make a model directory from a weights file; raises UserError.

    `weights` is a .pth, .pt, .safetensors or .caffemodel file, or `imagenet` for torchvision's
    weights, which are downloaded. `mean` is a Caffe mean image, (3, H, W) BGR as .npy or
    .binaryproto; its centre is used. By default, ILSVRC-2012's channel means are used.
    `class_names` are in the order of the outputs. By default, 1000 classes get ImageNet's names,
    and any other number of classes gets numbers.
    """
    if out.exists() and any(out.iterdir()):
        raise ImportingError(
            f"{out} is not empty; pass another --out, or remove that directory first"
        )
    if weights == IMAGENET:
        _check_mean(IMAGENET, mean)  # before the download
    file = weights_file(weights)
    network, source = read_network(file, mean)
    num_classes = network.architecture.num_classes
    names = tuple(class_names) if class_names is not None else default_names(num_classes)
    if len(names) != num_classes:
        raise ImportingError(
            f"{file} has {num_classes} classes but {len(names)} names were given; "
            "pass one name per line"
        )
    data = {"name": f"{source}, imported from {file.name}"}
    return save_model(network.eval(), out, class_names=names, recipe={}, data=data, metrics={})


def read_network(weights: Path, mean: Path | None = None) -> tuple[AlexNet, str]:
    """Read the network of a weights file and the name of its source; raises UserError.

    `mean` is the same as in `import_weights`.
    """
    if not weights.is_file():
        raise ImportingError(
            f"{weights} does not exist; pass {IMAGENET}, or a .pth, .safetensors or "
            ".caffemodel file"
        )
    if weights.suffix == ".caffemodel":
        return _from_caffe(weights, mean), "bvlc_alexnet"
    if weights.suffix not in TORCH_SUFFIXES:
        raise ImportingError(f"{weights} must end in .pth, .pt, .safetensors or .caffemodel")
    _check_mean(weights, mean)
    return _from_torchvision(weights), "torchvision alexnet"


def default_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's names if there are 1000 classes, otherwise numbers from 0 on.

    torchvision and Caffe both order ImageNet's classes by WordNet id.
    """
    if num_classes != NUM_IMAGENET_CLASSES:
        return tuple(map(str, range(num_classes)))
    from torchvision.models import AlexNet_Weights

    names: list[str] = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    # Two names occur twice in the list: cranes (birds, machines) and maillots (swimsuits, tights).
    return tuple(
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names)
    )


def _check_mean(weights: str | Path, mean: Path | None) -> None:
    if mean is not None:
        raise ImportingError(
            f"--mean works only with a .caffemodel file, but got {weights}; leave out --mean, "
            "because torchvision's weights always use the channel means of their training"
        )


def _from_torchvision(file: Path) -> AlexNet:
    state = _read_state(file)
    expected = [f"{layer}.{kind}" for layer in _TORCHVISION_LAYERS for kind in ("weight", "bias")]
    if differing := sorted(set(state) ^ set(expected)):
        raise ImportingError(
            f"{file} is not a state dict of torchvision's alexnet; "
            f"missing or unexpected: {', '.join(differing[:4])}"
        )
    tensors = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in zip(LAYERS, _TORCHVISION_LAYERS, strict=True)
        for kind in ("weight", "bias")
    }
    network = _build_network(
        tensors, file, layout="torchvision", normalization="none", image_size=224, mean="channel"
    )
    network.mean.copy_(255 * torch.tensor(TORCHVISION_MEAN))
    network.std.copy_(255 * torch.tensor(TORCHVISION_STD))
    return network


def _from_caffe(file: Path, mean: Path | None) -> AlexNet:
    layers = read_caffemodel(file)
    if missing := [name for name in _CAFFE_LAYERS if len(layers.get(name, ())) != 2]:
        raise ImportingError(
            f"{file} is not a bvlc_alexnet: it has no weights and biases for {', '.join(missing)}"
        )
    _check_order(list(layers), file)
    tensors = {}
    for ours, theirs in zip(LAYERS, _CAFFE_LAYERS, strict=True):
        weight, bias = (torch.from_numpy(blob) for blob in layers[theirs])
        is_padded = theirs.startswith("fc") and weight.ndim == 4  # (1, 1, out, in)
        tensors[f"{ours}.weight"] = weight.squeeze(0).squeeze(0) if is_padded else weight
        tensors[f"{ours}.bias"] = bias.flatten()
    first = f"{LAYERS[0]}.weight"
    tensors[first] = tensors[first].flip(1)  # Caffe's channels are blue, green, red
    network = _build_network(
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
    """Raise ImportingError for bvlc_reference_caffenet.

    Its weights have the same names and shapes, but its response normalisation follows the pooling.
    """
    for number in (1, 2):
        pool, norm = f"pool{number}", f"norm{number}"
        if pool in names and norm in names and names.index(pool) < names.index(norm):
            raise ImportingError(
                f"{file} is not a bvlc_alexnet: its {pool} comes before {norm}, "
                "as in bvlc_reference_caffenet; pass bvlc_alexnet.caffemodel"
            )


def _build_network(tensors: dict[str, Tensor], file: Path, **settings: Any) -> AlexNet:
    """Build the network with these weights; raises ImportingError if a shape is wrong.

    The caller sets the network's mean and std.
    """
    architecture = Architecture(num_classes=len(tensors["output.fc8.bias"]), **settings)
    with torch.device("meta"):  # gives the shapes without drawing weights
        shapes = {name: tensor.shape for name, tensor in AlexNet(architecture).state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name]:
            raise ImportingError(
                f"{file}: {name} must have the shape {tuple(shapes[name])} "
                f"but has {tuple(tensor.shape)}"
            )
    network = AlexNet(architecture)
    network.load_state_dict(tensors, strict=False)
    return network


def _read_state(file: Path) -> dict[str, Tensor]:
    """Read a .safetensors or .pth file as a state dict in float32; raises ImportingError."""
    try:
        state = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # each library raises its own errors, of several lines
        raise ImportingError(
            f"{file} cannot be read as plain weights; "
            "pass a state dict saved by torch.save, or a .safetensors file"
        ) from error
    is_state = isinstance(state, dict) and all(
        isinstance(tensor, Tensor) for tensor in state.values()
    )
    if not is_state:
        raise ImportingError(
            f"{file} does not contain a plain state dict; save model.state_dict() and pass it"
        )
    return {name: tensor.float() for name, tensor in state.items()}


def _mean_image(file: Path | None, size: int) -> npt.NDArray[np.float32]:
    """The centre of a BGR mean image (3, H, W), as RGB (size, size, 3); raises ImportingError."""
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
            f"{file}: the mean image must have the shape (3, H, W), "
            f"with H and W of {size} or more, but has {mean.shape}"
        )
    top, left = ((side - size) // 2 for side in mean.shape[1:])
    centre = mean[::-1, top : top + size, left : left + size]
    return np.ascontiguousarray(centre.transpose(1, 2, 0), np.float32)
