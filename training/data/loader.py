"""Provide batches of canvases on the training device.

Batches are read in advance, so that the device does not wait for them.
"""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.data.images import Pixels
from training.parallel import map_ahead, num_cores

MAX_SHARE_OF_GPU = 0.5
"""Canvases are kept on the GPU if they take at most this share of its free memory."""
UPLOAD_BLOCK_BYTES = 2**28


def keep_on_device(canvases: Pixels, device: torch.device) -> Pixels | Tensor:
    """Copy canvases (N, R, R, 3) to a GPU if they fit. Otherwise, return them as they are.

    If the canvases are on the GPU, the GPU gathers the batches, and a step copies no images from
    the CPU.
    """
    if device.type != "cuda":
        return canvases
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if canvases.nbytes > MAX_SHARE_OF_GPU * free_bytes:
        return canvases
    kept = torch.empty(canvases.shape, dtype=torch.uint8, device=device)
    block_size = max(1, UPLOAD_BLOCK_BYTES // canvases[0].nbytes)
    for start in range(0, len(canvases), block_size):
        block = np.array(canvases[start : start + block_size])
        kept[start : start + block_size] = torch.from_numpy(block)
    return kept


def batches(
    canvases: Pixels | Tensor, chosen: Iterable[Tensor], device: torch.device
) -> Generator[Tensor, None, None]:
    """Yield a batch of canvases on `device` for each tensor of positions (B,) in `chosen`.

    A batch is (B, R, R, 3) uint8. For a GPU, several threads copy batches from the page cache to
    pinned memory. For a CPU, there is only one thread, because the network needs the cores. Memory
    does not grow with the number of images, because only a few batches are read in advance. If the
    canvases are already on the device, the device gathers the batches.
    """
    if isinstance(canvases, Tensor):
        for positions in chosen:
            yield canvases[send(positions, device)]
        return
    is_gpu = device.type == "cuda"
    num_threads = min(16, num_cores()) if is_gpu else 1

    def gather(positions: Tensor) -> Tensor:
        shape = (len(positions), *canvases.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=is_gpu)
        # mode="raise" would copy through an extra buffer.
        np.take(canvases, positions.numpy(), axis=0, out=batch.numpy(), mode="clip")
        return batch

    with ThreadPoolExecutor(num_threads) as pool:
        for batch in map_ahead(pool, gather, chosen, ahead=num_threads + 1):
            yield batch.to(device, non_blocking=True)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the training device. The host does not wait for a GPU.

    A copy from memory that is not pinned would wait until the GPU has finished all earlier work.
    """
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def squares(canvases: Tensor, size: int) -> Tensor:
    """The central squares of canvases, (B, R, R, 3) -> (B, size, size, 3); see `images.centre`."""
    start = (canvases.shape[1] - size) // 2
    return canvases[:, start : start + size, start : start + size]
