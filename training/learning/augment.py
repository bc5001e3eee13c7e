"""Random crops, flips, colour noise and mixing, a batch at a time, on whichever device holds it.

Every random number of a step follows from the recipe's seed, the epoch and the step: see `Draws`. It is drawn for the whole
batch and then cut, so that several processes with a part of the batch each do together what one does alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.learning.recipe import Recipe

STREAM = 1
"""Sets these numbers apart from the trainer's, which follow from the same seed and epoch."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch."""

    uniform: Tensor
    """(B, 5) in 0..1: the crop's area, its aspect ratio, its row, its column, and whether it is mirrored."""
    normal: Tensor
    """(B, 3): how much of each principal colour component is added."""
    blended: float | None
    """The share of the first image in a mixup of two; None mixes none."""
    pasted: tuple[float, float, float] | None
    """The share of the first image in a cutmix, and the rectangle's centre (row, column) in 0..1; None pastes none."""

    @staticmethod
    def of(recipe: Recipe, batch_size: int, epoch: int, step: int) -> "Draws":
        """Those of a step of an epoch, both counted from 0."""
        random = np.random.default_rng((recipe.seed, STREAM, epoch, step))
        uniform = torch.from_numpy(random.random((batch_size, 5), dtype=np.float32))
        normal = torch.from_numpy(random.standard_normal((batch_size, 3), dtype=np.float32))
        # With both, a coin decides; of one alone, its alpha does.
        pastes = bool(recipe.cutmix) and (not recipe.mixup or random.random() < 0.5)
        blended = (
            float(random.beta(recipe.mixup, recipe.mixup)) if recipe.mixup and not pastes else None
        )
        pasted = (
            (float(random.beta(recipe.cutmix, recipe.cutmix)), random.random(), random.random())
            if pastes
            else None
        )
        return Draws(uniform, normal, blended, pasted)

    def part(self, start: int, end: int) -> "Draws":
        """Those of the images `start` to `end` of the batch."""
        return Draws(self.uniform[start:end], self.normal[start:end], self.blended, self.pasted)


@dataclass(frozen=True)
class Mixture:
    """What a mixed batch is of: `share` of each image is its own, the rest its partner's, whose class numbers are `others` (B,)."""

    share: float
    others: Tensor


def augment(
    canvases: Tensor, recipe: Recipe, draws: Draws, colour_axes: Tensor | None = None
) -> Tensor:
    """uint8 canvases (B, R, R, 3) -> training squares (B, S, S, 3) in 0..255: uint8, or floating-point where they were resized or coloured.

    `colour_axes` (3, 3) are those of `training.network.preprocessing.PixelStatistics`; None leaves the colours as they are.
    """
    uniform = draws.uniform.to(canvases.device)
    if recipe.crop == "random":
        squares = random_crops(canvases, recipe.image_size, uniform, flip=recipe.flip)
    else:
        squares = random_resized_crops(
            canvases, recipe.image_size, uniform, min_area=recipe.min_crop_area, flip=recipe.flip
        )
    if colour_axes is None or not recipe.colour_noise:
        return squares
    shifts = recipe.colour_noise * draws.normal.to(squares.device) @ colour_axes  # (B, 3)
    size = squares.shape[1]
    return (squares.float().reshape(-1, size, size * 3) + shifts.repeat(1, size)[:, None]).view_as(
        squares
    )  # by rows, which is faster


def random_crops(canvases: Tensor, size: int, uniform: Tensor, *, flip: bool) -> Tensor:
    """A random square of each canvas, every other one mirrored (section 4.1): (B, R, R, 3) -> (B, S, S, 3), same dtype.

    `uniform` (B, 5), as of `Draws`, lies on the canvases' device.
    """
    batch, side = canvases.shape[:2]
    device = canvases.device
    offsets = (
        (uniform[:, 2:4] * (side - size + 1)).long().clamp(max=side - size)
    )  # a float32 just under 1 may round to it
    along = torch.arange(size, device=device)
    rows, columns = offsets[:, :1] + along, offsets[:, 1:] + along  # (B, S) each
    if flip:
        columns = torch.where(_mirrored(uniform)[:, None], columns.flip(1), columns)
    images = torch.arange(batch, device=device)[:, None, None]
    return canvases[images, rows[:, :, None], columns[:, None, :]]


def random_resized_crops(
    canvases: Tensor, size: int, uniform: Tensor, *, min_area: float, flip: bool
) -> Tensor:
    """A random box of each canvas, resized, every other one mirrored: (B, R, R, 3) -> (B, S, S, 3).

    Szegedy et al. 2015, section 6, as torchvision's RandomResizedCrop with antialiasing. On a CPU uint8, image by image, since
    torch's kernel for bytes outruns matrix products there; on a GPU in floating point, all at once.
    """
    resize = resize_together if canvases.is_cuda else resize_one_by_one
    mirrored = _mirrored(uniform) if flip else torch.zeros_like(uniform[:, 4], dtype=torch.bool)
    return resize(canvases, random_boxes(uniform, canvases.shape[1], min_area), mirrored, size)


def random_boxes(uniform: Tensor, side: int, min_area: float) -> Tensor:
    """Boxes (B, 4) int64, top, left, height and width, of `min_area` to all of a canvas, with an aspect ratio of 3:4 to 4:3."""
    area = min_area + (1 - min_area) * uniform[:, 0]
    root_of_aspect = (4 / 3) ** (uniform[:, 1] - 0.5)
    lengths = (
        (area.sqrt()[:, None] * torch.stack((1 / root_of_aspect, root_of_aspect), 1) * side)
        .round()
        .clamp(1, side)
    )
    starts = (
        (uniform[:, 2:4] * (side - lengths + 1)).floor().minimum(side - lengths)
    )  # a float32 just under 1 may round to it
    return torch.cat((starts, lengths), 1).long()


def resize_one_by_one(canvases: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Each canvas's box at size S, mirrored where `mirrored` (B,) says so: uint8 (B, R, R, 3) -> uint8 (B, S, S, 3)."""
    squares = np.empty((len(canvases), size, size, 3), np.uint8)
    for canvas, (top, left, height, width), square in zip(
        canvases.numpy(), boxes.tolist(), squares, strict=True
    ):
        # NumPy copies, since torch would call its threads for each of these few bytes.
        box = torch.from_numpy(
            np.ascontiguousarray(canvas[None, top : top + height, left : left + width])
        )
        resized = nn.functional.interpolate(
            box.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True
        )
        square[:] = resized[0].permute(1, 2, 0).numpy()
    is_mirrored = mirrored.numpy()
    squares[is_mirrored] = torch.from_numpy(squares).flip(2).numpy()[is_mirrored]
    return torch.from_numpy(squares)


def resize_together(canvases: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """The same as two batched matrix products, in floating point: in bfloat16 under autocast, whose eight bits are the pixels' own."""
    batch, side = canvases.shape[:2]
    starts, lengths = boxes.split(2, dim=1)
    rows = _interpolation(starts[:, 0], lengths[:, 0], side, size)
    columns = _interpolation(starts[:, 1], lengths[:, 1], side, size)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    lines = (
        canvases.permute(0, 1, 3, 2)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .view(batch, side, 3 * side)
    )
    squeezed = torch.bmm(rows, lines).view(batch, size * 3, side)
    return torch.bmm(squeezed, columns.mT).view(batch, size, 3, size).permute(0, 1, 3, 2)


def mix(squares: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Mixture | None]:
    """Blends or pastes each image with its neighbour in the batch, 0 with 1, 2 with 3 and so on: (B, S, S, 3) -> the same, in place
    unless bytes are blended. The last of an odd number stays alone.
    """
    if draws.blended is None and draws.pasted is None:
        return squares, None
    if draws.blended is not None:
        squares = squares.float()
    num_paired = len(squares) // 2 * 2
    evens, odds = squares[0:num_paired:2], squares[1:num_paired:2]
    others = targets.clone()
    others[0:num_paired:2], others[1:num_paired:2] = (
        targets[1:num_paired:2],
        targets[0:num_paired:2],
    )
    if draws.blended is not None:
        before = evens.clone()
        evens.lerp_(odds, 1 - draws.blended)
        odds.lerp_(before, 1 - draws.blended)
        return squares, Mixture(draws.blended, others)
    assert draws.pasted is not None
    share, row, column = draws.pasted
    size = squares.shape[1]
    half = (1 - share) ** 0.5 * size / 2
    top, bottom, left, right = (
        min(max(round(place * size + reach), 0), size)
        for place in (row, column)
        for reach in (-half, half)
    )
    evens, odds = evens[:, top:bottom, left:right], odds[:, top:bottom, left:right]
    before = evens.clone()
    evens.copy_(odds)
    odds.copy_(before)
    return squares, Mixture(1 - (bottom - top) * (right - left) / size**2, others)


def _mirrored(uniform: Tensor) -> Tensor:
    return uniform[:, 4] < 0.5


def _interpolation(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(B, size, side) weights that sample pixels start to start + length of `side` at `size` places.

    A triangle about each place, as wide as the distance between two places where that is more than a pixel, cut off at the box.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixels, places = (
        torch.arange(side, device=start.device),
        torch.arange(size, device=start.device),
    )
    centres = start + (places[:, None] + 0.5) * length / size - 0.5
    weights = (1 - (pixels - centres).abs() / (length / size).clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels >= start) & (pixels < start + length))
    return weights / weights.sum(2, keepdim=True)
