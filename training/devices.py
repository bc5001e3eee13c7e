"""The device that computes: the CPU or a GPU. Torch is imported only when it is needed."""

import os
from typing import TYPE_CHECKING, Literal

from training.errors import UserError

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "gpu", "auto"]
"""The device a command computes on. `auto` takes the GPU if there is one, else the CPU."""
GPU_DRIVER_NODES = ("/dev/nvidiactl", "/dev/dxg")
"""Device files of NVIDIA's driver on Linux and in WSL. Without them there is no usable GPU."""


def best_device() -> "torch.device":
    """The first GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: "torch.device") -> str:
    """The name of the GPU, or `CPU`."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def resolve_device(device: Device) -> Literal["cpu", "gpu"]:
    """Choose the CPU or a GPU; raises UserError for `gpu` if torch can use none."""
    if device == "cpu":
        return "cpu"
    # Importing torch takes seconds, so the driver is looked for first.
    if any(os.path.exists(node) for node in GPU_DRIVER_NODES):
        try:
            import torch

            if torch.cuda.is_available():
                return "gpu"
        except ImportError:
            pass
    if device == "gpu":
        raise UserError("a GPU was asked for but torch finds none here; pass --device cpu")
    return "cpu"
