"""Train with one tower on each of two devices, as the paper does.

The towers exchange their maps only at conv3 and before the fully connected layers (Krizhevsky et
al. 2012, section 3.2 and figure 2). The results are the same as with grouped convolutions on one
device. `write_back` joins the two halves of every weight. So a model directory has the same layout
for a network that was trained on one device and for a network that was trained on two.
"""

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from training.errors import UserError
from training.network.alexnet import AlexNet, Architecture, LocalResponseNorm, preprocess


class TowerParallel(nn.Module):
    """uint8 squares (B, S, S, 3) -> logits (B, num_classes) and features (B, 4096), like AlexNet.

    The outputs are on the first of the two devices.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: AlexNet, devices: Sequence[str]):
        super().__init__()
        check_towers(network.architecture, devices)
        self.devices = [torch.device(device) for device in devices]
        self.register_buffer("mean", network.mean.clone().to(self.devices[0]))
        self.register_buffer("std", network.std.clone().to(self.devices[0]))
        layers = (*network.convolutions, *network.hidden)
        self.exchanges = [_reads_both_towers(layer) for layer in layers]
        """One entry per layer: whether the towers exchange their maps before this layer."""
        towers = [_Tower(network).to(device) for device in self.devices]
        self.towers = nn.ModuleList(towers)
        self._layer_pairs = list(zip(*(tower.layers() for tower in towers), strict=True))
        self.output = deepcopy(network.output).to(self.devices[0])
        self.to(memory_format=torch.channels_last)
        self.read(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = preprocess(images.to(self.devices[0]), self.mean, self.std)  # (B, 3, S, S)
        maps = [x.to(device, non_blocking=True) for device in self.devices]
        for has_exchange, layers in zip(self.exchanges, self._layer_pairs, strict=True):
            if has_exchange:
                maps = [_join(maps, device) for device in self.devices]  # (B, C, ...) on each
            maps = [
                layer(half) for layer, half in zip(layers, maps, strict=True)
            ]  # (B, C / 2, ...)
        features = _join(maps, self.devices[0])  # (B, 4096)
        return self.output(features), features  # (B, num_classes), (B, 4096)

    def read(self, network: AlexNet) -> None:
        """Copy the weights of the whole network into the towers."""
        whole = network.state_dict()
        for number, tower in enumerate(self.towers):
            halves = {name: _halves(whole[name])[number] for name in tower.state_dict()}
            tower.load_state_dict(halves)
        self.output.load_state_dict(network.output.state_dict())
        self.mean.copy_(network.mean)
        self.std.copy_(network.std)

    def write_back(self, network: AlexNet) -> None:
        """Copy the towers' weights into the whole network. Its preprocessing is not changed."""
        first, second = (tower.state_dict() for tower in self.towers)
        joined = {}
        for name, half in first.items():
            # Batch norm's number of batches is a scalar. It is the same in both towers.
            joined[name] = torch.cat((half.cpu(), second[name].cpu())) if half.ndim else half
        output = {f"output.{name}": tensor for name, tensor in self.output.state_dict().items()}
        network.load_state_dict({**network.state_dict(), **joined, **output})


def check_towers(architecture: Architecture, devices: Sequence[str]) -> None:
    """Raise UserError if the network does not have two separate towers, or a device is missing."""
    if architecture.response_crosses_towers:
        raise UserError(
            "--tower-devices needs a response normalisation within each tower, but this model's "
            "crosses the towers, as in Caffe; train without --tower-devices"
        )
    if len(devices) != 2 or architecture.layout != "paper" or architecture.num_towers != 2:
        raise UserError(
            "--tower-devices needs exactly two devices and a network with layout=paper and "
            f"num_towers=2; got {len(devices)} and layout={architecture.layout}, "
            f"num_towers={architecture.num_towers}"
        )
    num_gpus = torch.cuda.device_count()
    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = torch.device("meta")
        if device.type not in ("cpu", "cuda"):
            raise UserError(
                f"--tower-devices names {name}, but that is not a device for training; "
                "pass two devices such as cuda:0,cuda:1 or cpu,cpu"
            )
        if device.type == "cuda" and (device.index or 0) >= num_gpus:
            raise UserError(
                f"--tower-devices names {name}, but this machine has {num_gpus} GPUs; "
                "pass other devices, or cpu,cpu"
            )


class _Tower(nn.Module):
    """One tower: half of the maps or units of every layer, without the output layer.

    The parameters have the same names as in AlexNet.
    """

    def __init__(self, network: AlexNet):
        super().__init__()
        self.convolutions = _halved(network.convolutions)
        self.hidden = _halved(network.hidden)

    def layers(self) -> list[nn.Module]:
        return [*self.convolutions, *self.hidden]


def _halved(layers: nn.Sequential) -> nn.Sequential:
    halves = ((name, _half(layer)) for name, layer in layers.named_children())
    return nn.Sequential(OrderedDict(halves))


def _half(layer: nn.Module) -> nn.Module:
    """A layer with half of the maps or units. Its weights are not set yet."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)  # AlexNet's paddings are numbers
        return nn.Conv2d(
            layer.in_channels // layer.groups,
            layer.out_channels // 2,
            _pair(layer.kernel_size),
            _pair(layer.stride),
            _pair(layer.padding),
            bias=layer.bias is not None,
        )
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(layer.num_features // 2)
    if isinstance(layer, LocalResponseNorm):
        return LocalResponseNorm(layer.band.shape[1], 1, k=layer.k)
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features // 2)
    return deepcopy(layer)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Height and width. Torch declares a convolution's sizes as tuples of any length."""
    height, width = sizes
    return height, width


def _reads_both_towers(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        # conv1 has one group too, but it reads the image, and both devices have the image.
        return layer.groups == 1 and layer.in_channels > 3
    return isinstance(layer, nn.Linear)


def _join(halves: Sequence[Tensor], device: torch.device) -> Tensor:
    """Both towers' maps on one device: two of (B, C / 2, ...) -> (B, C, ...)."""
    return torch.cat([half.to(device, non_blocking=True) for half in halves], 1)


def _halves(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.chunk(2) if tensor.ndim else (tensor, tensor)
