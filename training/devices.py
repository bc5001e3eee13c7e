"""Choose the device that a command computes on: the CPU or a GPU.

The module imports torch only inside its functions, because importing torch takes seconds.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Literal

from training.errors import UserError
from training.progress import console

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "gpu", "auto"]
"""The device that a command computes on. `auto` uses a GPU if there is one, otherwise the CPU."""
Precision = Literal["float32", "int8"]
"""The numbers of a network. On the CPU, float32 is model.onnx, and int8 is model.int8.onnx."""
RequestedPrecision = Literal["auto", "float32", "int8"]
"""A precision that a user asks for. With `auto`, the model and the processor decide."""
GPU_DRIVER_NODES = ("/dev/nvidiactl", "/dev/dxg")
"""Device files of NVIDIA's driver on Linux and in WSL. If none exists, no GPU can be used."""
MIN_FREE_BYTES = 2 * 2**30
"""Minimum free memory of a GPU. With less free memory, the GPU is not used.

AlexNet's weights, gradients and momentum take 0.7 GiB together. The rest is for the activations of
a batch and for CUDA's libraries. It was not measured.
"""


def best_device() -> "torch.device":
    """The first GPU if torch can compute on it, otherwise the CPU.

    If torch sees a GPU but cannot use it, the reason is printed once.
    """
    import torch

    is_usable = torch.cuda.is_available() and _is_usable()
    return torch.device("cuda" if is_usable else "cpu")


def device_name(device: "torch.device") -> str:
    """The name of the GPU, or `CPU`."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def resolve_device(device: Device) -> Literal["cpu", "gpu"]:
    """Turn `auto` into `cpu` or `gpu`. The values `cpu` and `gpu` stay as they are.

    Raises UserError if `device` is `gpu` and torch cannot use a GPU.
    """
    if device == "cpu":
        return "cpu"
    # Importing torch takes seconds, so the driver's files are checked first.
    if any(os.path.exists(node) for node in GPU_DRIVER_NODES):
        try:
            import torch

            if torch.cuda.is_available():
                return _checked(device)
        except ImportError:
            pass
    if device == "gpu":
        raise UserError("a GPU was asked for but torch finds none here; pass --device cpu")
    return "cpu"


def gpu_problem() -> str | None:
    """The reason why torch cannot compute on the first GPU that it lists, or None if it can.

    The function multiplies two small matrices on the GPU. This test is needed because torch also
    lists a GPU for which it has no kernels.
    """
    import torch

    name = "GPU"
    try:
        name = torch.cuda.get_device_name(0)
        free_bytes, _ = torch.cuda.mem_get_info(0)
        if free_bytes < MIN_FREE_BYTES:
            return (
                f"the {name} has {free_bytes / 2**30:.1f} GiB of free memory, "
                f"and {MIN_FREE_BYTES / 2**30:.0f} GiB are needed"
            )
        numbers = torch.ones(16, 16, device="cuda:0")
        float((numbers @ numbers).sum())  # waits for the result
    except Exception as error:  # torch raises different errors when it initialises a broken GPU
        reason = str(error).partition("\n")[0]
        return f"torch {torch.__version__} cannot compute on the {name} ({reason})"
    return None


def _checked(device: Device) -> Literal["cpu", "gpu"]:
    """Return `gpu` if torch can compute on the first GPU.

    If it cannot, return `cpu` for the device `auto`, and raise UserError for the device `gpu`.
    """
    if device == "auto":
        return "gpu" if _is_usable() else "cpu"
    if problem := gpu_problem():
        raise UserError(f"{problem}; pass --device cpu")
    return "gpu"


@cache
def _is_usable() -> bool:
    """Whether torch can compute on the first GPU. If it cannot, the reason is printed."""
    problem = gpu_problem()
    if problem:
        console.print(f"The CPU is used, because {problem}")
    return problem is None
