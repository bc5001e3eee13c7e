"""Batches of canvases on the training device, read ahead by threads so that the device does not wait."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.data.images import Pixels
from training.parallel import map_ahead


def batches(canvases: Pixels, chosen: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """For each tensor of image numbers (B,), the canvases (B, R, R, 3) uint8 on `device`, in order.

    For a GPU several batches are copied at once, out of the page cache into pinned memory; a CPU gets one thread, since the passes
    need the cores. Few batches are ever in flight, so memory does not grow with the number of images.
    """
    is_gpu = device.type == "cuda"
    num_threads = min(16, os.cpu_count() or 1) if is_gpu else 1

    def gather(numbers: Tensor) -> Tensor:
        batch = torch.empty(
            (len(numbers), *canvases.shape[1:]), dtype=torch.uint8, pin_memory=is_gpu
        )
        np.take(
            canvases, numbers.numpy(), axis=0, out=batch.numpy(), mode="clip"
        )  # "raise" would copy through a buffer
        return batch

    with ThreadPoolExecutor(num_threads) as pool:
        for batch in map_ahead(pool, gather, chosen, ahead=num_threads + 1):
            yield batch.to(device, non_blocking=True)


def squares(canvases: Tensor, size: int) -> Tensor:
    """The central (B, size, size, 3) of canvases (B, R, R, 3): what `training.data.images.centre` is for arrays."""
    start = (canvases.shape[1] - size) // 2
    return canvases[:, start : start + size, start : start + size]
