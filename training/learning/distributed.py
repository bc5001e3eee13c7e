"""Several processes that train one network, as `torchrun` starts them: gloo between CPUs, NCCL between GPUs.

The recipe's batch is the sum of all processes' parts, so the number of processes changes the speed and not the training.
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

from training.errors import UserError

DECODING_TIMEOUT = timedelta(days=1)
"""How long the other processes wait for the first one, which decodes; torchrun itself notices a process that died."""


@dataclass(frozen=True)
class Part:
    """The images `start` to `end` of a batch, for one process; each counts `weight` in the mean that the processes' gradients make."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Workers:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def is_first(self) -> bool:
        """Whether this process decodes, prints and writes for all."""
        return self.rank == 0

    def part(self, batch_size: int) -> Part:
        """This process's images of a batch. It begins at an even number, since mixing pairs neighbours; a batch too small to be
        shared is computed by every process.
        """
        num_pairs = batch_size // 2
        if num_pairs < self.count:
            return Part(0, batch_size, 1 / batch_size)
        start, end = (2 * (num_pairs * rank // self.count) for rank in (self.rank, self.rank + 1))
        return Part(
            start, batch_size if self.rank == self.count - 1 else end, self.count / batch_size
        )

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, in all of them."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.count

    def any(self, is_true: bool) -> bool:
        """Whether it is true in any process."""
        return bool(self.mean(torch.tensor(float(is_true), device=self.device)) > 0)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()


def is_first_process() -> bool:
    """Whether this is the process that speaks for all; true outside torchrun."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_workers() -> Iterator[Workers]:
    """Joins the processes that torchrun started; outside torchrun, this one alone, on the GPU where there is one."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Workers(device=device)
        return
    if device.type == "cuda":
        if local_rank >= (num_gpus := torch.cuda.device_count()):
            raise UserError(
                f"torchrun started a process {local_rank + 1} here, but this machine has {num_gpus} GPUs; start one for each"
            )
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=DECODING_TIMEOUT
    )
    try:
        yield Workers(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
    finally:
        torch.distributed.destroy_process_group()


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of all processes; torch's own works on GPUs only, and not on parts of different sizes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values = x.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = _Sum.apply(torch.cat((values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count)))
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean * mean).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum or 0.0)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        normalized: Tensor = values * scale[:, None, None] + shift[:, None, None]
        return normalized.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since every process's loss depends on every part."""

    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        total = part.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(_, gradient)


def synchronize_batch_norms(network: nn.Module) -> None:
    """Makes every batch norm of a network reckon over all processes."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
