"""The paper's own way over two devices: a tower on each, which exchange their maps at conv3 and before the full layers only.

Krizhevsky et al. 2012, section 3.2 and figure 2. The sums are those of the network with grouped convolutions on one device;
`write_back` puts the two halves of every weight together again, so a model directory does not show how it was trained.
"""

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from training.errors import UserError
from training.network.alexnet import AlexNet, Architecture, LocalResponseNorm, preprocess


class TowerParallel(nn.Module):
    """uint8 squares (B, S, S, 3) -> logits (B, num_classes) and features (B, 4096) on the first of two devices, as AlexNet's."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: AlexNet, devices: Sequence[str]):
        super().__init__()
        check_towers(network.architecture, devices)
        self.devices = [torch.device(device) for device in devices]
        self.register_buffer("mean", network.mean.clone().to(self.devices[0]))
        self.register_buffer("std", network.std.clone().to(self.devices[0]))
        self.exchanges = [
            _reads_both_towers(layer) for layer in (*network.convolutions, *network.hidden)
        ]
        self.towers = nn.ModuleList(_Tower(network).to(device) for device in self.devices)
        self.output = deepcopy(network.output).to(self.devices[0])
        self.to(memory_format=torch.channels_last)
        self.read(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = preprocess(images.to(self.devices[0]), self.mean, self.std)
        parts = [x.to(device, non_blocking=True) for device in self.devices]
        towers = ((*tower.convolutions, *tower.hidden) for tower in self.towers)  # type: ignore[misc]
        for exchange, *layers in zip(self.exchanges, *towers, strict=True):
            if exchange:
                parts = [
                    torch.cat([part.to(device, non_blocking=True) for part in parts], 1)
                    for device in self.devices
                ]
            parts = [layer(part) for layer, part in zip(layers, parts, strict=True)]
        features = torch.cat([part.to(self.devices[0], non_blocking=True) for part in parts], 1)
        return self.output(features), features

    def read(self, network: AlexNet) -> None:
        """Takes the weights of the whole network."""
        whole = network.state_dict()
        for number, tower in enumerate(self.towers):
            tower.load_state_dict(
                {name: _halves(whole[name])[number] for name in tower.state_dict()}
            )
        self.output.load_state_dict(network.output.state_dict())
        self.mean.copy_(network.mean)
        self.std.copy_(network.std)

    def write_back(self, network: AlexNet) -> None:
        """Gives the whole network these weights."""
        first, second = (tower.state_dict() for tower in self.towers)
        whole = {
            name: torch.cat((first[name].cpu(), second[name].cpu()))
            if first[name].ndim
            else first[name]
            for name in first
        }
        others = {f"output.{name}": tensor for name, tensor in self.output.state_dict().items()}
        network.load_state_dict({**network.state_dict(), **whole, **others})


def check_towers(architecture: Architecture, devices: Sequence[str]) -> None:
    """Raises UserError where the network has no two towers to part, or the devices are not two of this machine's."""
    if architecture.response_crosses_towers:
        raise UserError(
            "a tower a device needs a response normalisation within each tower; Caffe's, which this model has, crosses them"
        )
    if len(devices) != 2 or architecture.layout != "paper" or architecture.num_towers != 2:
        raise UserError(
            f"a tower a device takes two devices and two towers of the paper's layout; got {len(devices)} and "
            f"layout={architecture.layout}, num_towers={architecture.num_towers}"
        )
    num_gpus = torch.cuda.device_count()
    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = torch.device("meta")
        if device.type not in ("cpu", "cuda"):
            raise UserError(
                f"--tower-devices names {name}, which is no device to train on; pass two such as cuda:0,cuda:1 or cpu,cpu"
            )
        if device.type == "cuda" and (device.index or 0) >= num_gpus:
            raise UserError(
                f"--tower-devices names {name}, but this machine has {num_gpus} GPUs; pass others, or cpu,cpu"
            )


class _Tower(nn.Module):
    """Half the maps and half the units of every layer but the last; its parameters are named as the network's."""

    def __init__(self, network: AlexNet):
        super().__init__()
        self.convolutions = _halved(network.convolutions)
        self.hidden = _halved(network.hidden)


def _halved(layers: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict((name, _half(layer)) for name, layer in layers.named_children())
    )


def _half(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return nn.Conv2d(
            layer.in_channels // layer.groups,
            layer.out_channels // 2,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            bias=layer.bias is not None,
        )
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(layer.num_features // 2)
    if isinstance(layer, LocalResponseNorm):
        return LocalResponseNorm(layer.band.shape[1], 1, k=layer.k)
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features // 2)
    return deepcopy(layer)


def _reads_both_towers(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.in_channels > 3  # conv1 reads the image, which both have
    return isinstance(layer, nn.Linear)


def _halves(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.chunk(2) if tensor.ndim else (tensor, tensor)
