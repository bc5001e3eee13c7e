"""Batches of canvases on the training device, read ahead so that the device does not wait."""

import os
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.data.images import Pixels
from training.parallel import map_ahead


def batches(
    canvases: Pixels, chosen: Iterable[Tensor], device: torch.device
) -> Generator[Tensor, None, None]:
    """For each tensor of positions (B,), its canvases (B, R, R, 3) uint8 on `device`, in order.

    For a GPU several threads copy batches out of the page cache into pinned memory. For a CPU there
    is one thread, because the network needs the cores. Memory does not grow with the number of
    images: only a few batches are read ahead.
    """
    is_gpu = device.type == "cuda"
    num_threads = min(16, os.cpu_count() or 1) if is_gpu else 1

    def gather(positions: Tensor) -> Tensor:
        shape = (len(positions), *canvases.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=is_gpu)
        # mode="raise" would copy through a buffer.
        np.take(canvases, positions.numpy(), axis=0, out=batch.numpy(), mode="clip")
        return batch

    with ThreadPoolExecutor(num_threads) as pool:
        for batch in map_ahead(pool, gather, chosen, ahead=num_threads + 1):
            yield batch.to(device, non_blocking=True)


def squares(canvases: Tensor, size: int) -> Tensor:
    """The central squares of canvases, (B, R, R, 3) -> (B, size, size, 3); see `images.centre`."""
    start = (canvases.shape[1] - size) // 2
    return canvases[:, start : start + size, start : start + size]
