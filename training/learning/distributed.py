"""Train one network in several processes that `torchrun` starts.

The processes communicate through gloo if they train on CPUs, and through NCCL if they train on
GPUs. Each process computes a part of every batch. So the number of processes changes the speed, but
the result stays the same up to rounding. Dropout is the exception, because each process draws its
own random numbers for dropout.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from training.devices import best_device
from training.errors import UserError

DECODING_TIMEOUT = timedelta(days=1)
"""Maximum time that the other processes wait while the first process decodes.

The limit can be long, because torchrun itself notices a process that died.
"""


@dataclass(frozen=True)
class BatchShare:
    """One process's part of a batch: the images from `start` up to, but not including, `end`."""

    start: int
    end: int
    weight: float
    """Factor by which the loss of each image is multiplied.

    With this factor, the mean of the processes' losses equals the mean of the images' losses.
    """


@dataclass(frozen=True)
class Workers:
    """This process, and the number of processes that train together. The default is one process."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def is_first(self) -> bool:
        """Whether this is the process that decodes, prints and writes."""
        return self.rank == 0

    def part(self, batch_size: int) -> BatchShare:
        """This process's part of a batch.

        A part starts at an even position, because mixup and cutmix pair neighbouring images. If a
        batch is too small to be shared, every process computes the whole batch.
        """
        num_pairs = batch_size // 2
        if num_pairs < self.count:
            return BatchShare(0, batch_size, 1 / batch_size)
        start, end = (2 * (num_pairs * rank // self.count) for rank in (self.rank, self.rank + 1))
        if self.rank == self.count - 1:
            end = batch_size
        return BatchShare(start, end, self.count / batch_size)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes. Every process gets the mean."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.count

    def any(self, is_true: bool) -> bool:
        """Whether `is_true` is true in any process."""
        return bool(self.mean(torch.tensor(float(is_true), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        if self.count > 1:
            torch.distributed.barrier()


def is_first_process() -> bool:
    """Whether this is the process that prints. Outside torchrun, it is always true."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_workers() -> Iterator[Workers]:
    """Join the processes that torchrun started. Outside torchrun, this process is the only one.

    If the machine has GPUs, each process trains on its own GPU. In this case, UserError is raised
    if there are more processes than GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Workers(device=best_device())
        return
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        if local_rank >= (num_gpus := torch.cuda.device_count()):
            raise UserError(
                f"torchrun started {local_rank + 1} or more processes, but this machine has "
                f"{num_gpus} GPUs; start one process per GPU"
            )
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=DECODING_TIMEOUT)
    try:
        yield Workers(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
    finally:
        torch.distributed.destroy_process_group()


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm with the mean and variance of the whole batch, over the parts of all processes.

    torch's own SyncBatchNorm is not used, because it works only on GPUs and needs parts of the same
    size.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values = x.float()  # (B, C, H, W)
        count = values.new_full((1,), values.numel() / values.shape[1])
        own_sums = (values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count)
        sums = _Sum.apply(torch.cat(own_sums))  # (2 * C + 1,)
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)  # (C,) each
        variance = (square - mean * mean).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum or 0.0)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        normalized: Tensor = values * scale[:, None, None] + shift[:, None, None]  # (B, C, H, W)
        return normalized.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes.

    The backward pass sums the gradients too, because the loss of every process depends on the
    tensors of all processes.
    """

    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        total = part.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(_, gradient)


def synchronize_batch_norms(network: nn.Module) -> None:
    """Turn every batch norm of a network into a SyncedBatchNorm, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
