"""The images that the GPU benchmark trains on: the user's, or made-up ones of one colour."""

from typing import NamedTuple

import numpy as np
import torch

from benchmarks.gpu.job import Job
from benchmarks.training_loops import decoded_split
from training.data.datasets import Part, open_dataset
from training.data.images import canvas_px
from training.learning.plan import Split

PARTS: tuple[Part, ...] = ("train", "held-out")


class Images(NamedTuple):
    """The decoded images of a data set."""

    train: Split
    held_out: Split
    is_made_up: bool


def read_images(job: Job, image_size: int) -> Images:
    """Decode the images of `job.data` for a network that sees squares of `image_size`.

    Without `job.data`, the images are made up. The canvases stay in the job's folder, so the next
    call does not decode them again.
    """
    if job.data is None:
        count = job.size(64, 4096)
        train, held_out = (made_up(count, image_size, seed) for seed in (0, 1))
        return Images(train, held_out, is_made_up=True)
    dataset = open_dataset(str(job.data))
    train, held_out = (
        decoded_split(
            str(job.data), dataset.part(part), image_size, job.workdir / f"{part}-{image_size}.u8"
        )
        for part in PARTS
    )
    return Images(train, held_out, is_made_up=False)


def made_up(count: int, image_size: int, seed: int) -> Split:
    """Canvases of ten classes. A class is a brightness, and noise is added to it."""
    side = canvas_px(image_size)
    targets = np.arange(count) % 10
    noise = np.random.default_rng(seed).integers(0, 20, (count, side, side, 3), np.uint8)
    canvases = noise + (25 * targets).astype(np.uint8)[:, None, None, None]
    return Split(canvases, torch.from_numpy(targets))
