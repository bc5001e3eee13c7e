"""Augment a batch with random crops, flips, colour noise, mixup and cutmix.

The work is done on the device that holds the batch. `Draws` contains the random numbers of a step.
They are drawn for the whole batch. Each process uses the numbers of its own part, so several
processes give the same result as one process.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.data.loader import send
from training.learning.recipe import Recipe

STREAM = 1
"""Separates the random numbers of this module from those of step.py.

Both modules use the same seed and epoch.
"""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch."""

    uniform: Tensor
    """(B, 5) in 0..1: the crop's area, aspect ratio, row and column, and whether it is mirrored."""
    normal: Tensor
    """(B, 3): the factors by which the principal colour components are multiplied and added."""
    blended: float | None
    """The share that an image keeps when mixup blends it with its partner. None means no mixup."""
    pasted: tuple[float, float, float] | None
    """Three numbers in 0..1: the share of an image that cutmix keeps, and the row and the column of
    the centre of the rectangle that cutmix replaces. None means no cutmix."""

    @staticmethod
    def of(recipe: Recipe, batch_size: int, epoch: int, step: int) -> "Draws":
        """Draw the random numbers of one step. `epoch` and `step` count from 0."""
        random = np.random.default_rng((recipe.seed, STREAM, epoch, step))
        uniform = torch.from_numpy(random.random((batch_size, 5), dtype=np.float32))
        normal = torch.from_numpy(random.standard_normal((batch_size, 3), dtype=np.float32))
        # If the recipe uses both mixup and cutmix, each is used for half of the batches, at random.
        pastes = bool(recipe.cutmix) and (not recipe.mixup or random.random() < 0.5)
        blended, pasted = None, None
        if pastes:
            share = float(random.beta(recipe.cutmix, recipe.cutmix))
            pasted = (share, random.random(), random.random())
        elif recipe.mixup:
            blended = float(random.beta(recipe.mixup, recipe.mixup))
        return Draws(uniform, normal, blended, pasted)

    def part(self, start: int, end: int) -> "Draws":
        """The numbers for the images of the batch from `start` up to, but not including, `end`."""
        return Draws(self.uniform[start:end], self.normal[start:end], self.blended, self.pasted)


@dataclass(frozen=True)
class Mixture:
    """The result of mixup or cutmix for a batch, as the loss needs it."""

    share: float
    """The share that each image keeps. The rest comes from its partner."""
    others: Tensor
    """(B,): the class indices of the partners."""


def augment(
    canvases: Tensor, recipe: Recipe, draws: Draws, colour_axes: Tensor | None = None
) -> Tensor:
    """Crop, mirror and colour uint8 canvases: (B, R, R, 3) -> (B, S, S, 3).

    The values of the squares are in 0..255. The squares are uint8. If colour noise was added or a
    GPU resized them, they are floating-point. `colour_axes` (3, 3) is a property of
    `PixelStatistics`. If it is None, the colours do not change.
    """
    uniform = send(draws.uniform, canvases.device)
    if recipe.crop == "random":
        squares = random_crops(canvases, recipe.image_size, uniform, flip=recipe.flip)
    else:
        squares = random_resized_crops(
            canvases, recipe.image_size, uniform, min_area=recipe.min_crop_area, flip=recipe.flip
        )
    if colour_axes is None or not recipe.colour_noise:
        return squares
    shifts = recipe.colour_noise * send(draws.normal, squares.device) @ colour_axes  # (B, 3)
    size = squares.shape[1]
    # Adding to whole rows of pixels is faster than adding to each pixel's three values.
    rows = squares.float().reshape(-1, size, size * 3)  # (B, S, S * 3)
    return (rows + shifts.repeat(1, size)[:, None]).view_as(squares)  # (B, S, S, 3)


def random_crops(canvases: Tensor, size: int, uniform: Tensor, *, flip: bool) -> Tensor:
    """Cut a random square out of each canvas (section 4.1): (B, R, R, 3) -> (B, S, S, 3).

    The dtype stays the same. If `flip` is true, half of the squares are mirrored. `uniform` (B, 5)
    comes from `Draws` and is on the device of the canvases.
    """
    batch, side = canvases.shape[:2]
    device = canvases.device
    # If a random number is just below 1, the product can be rounded up to the next whole number.
    # That offset would be too large by 1, so it is clamped.
    offsets = (uniform[:, 2:4] * (side - size + 1)).long().clamp(max=side - size)  # (B, 2)
    along = torch.arange(size, device=device)
    rows, columns = offsets[:, :1] + along, offsets[:, 1:] + along  # (B, S) each
    if flip:
        columns = torch.where(_mirrored(uniform)[:, None], columns.flip(1), columns)
    images = torch.arange(batch, device=device)[:, None, None]
    return canvases[images, rows[:, :, None], columns[:, None, :]]


def random_resized_crops(
    canvases: Tensor, size: int, uniform: Tensor, *, min_area: float, flip: bool
) -> Tensor:
    """Cut a random box out of each canvas and resize it: (B, R, R, 3) -> (B, S, S, 3).

    The method is that of Szegedy et al. 2015, section 6, as in torchvision's RandomResizedCrop with
    antialiasing. If `flip` is true, half of the crops are mirrored. On a CPU, images are resized
    one by one as uint8, because torch's uint8 kernel is faster on a CPU than matrix products. On a
    GPU, all images are resized at once, in floating point.
    """
    resize = resize_together if canvases.is_cuda else resize_one_by_one
    mirrored = _mirrored(uniform) if flip else torch.zeros_like(uniform[:, 4], dtype=torch.bool)
    return resize(canvases, random_boxes(uniform, canvases.shape[1], min_area), mirrored, size)


def random_boxes(uniform: Tensor, side: int, min_area: float) -> Tensor:
    """Random boxes (B, 4) int64 of a canvas: top, left, height, width.

    A box covers a share of the canvas between `min_area` and 1. Its aspect ratio is between 3:4 and
    4:3.
    """
    area = min_area + (1 - min_area) * uniform[:, 0]
    root_of_aspect = (4 / 3) ** (uniform[:, 1] - 0.5)
    proportions = torch.stack((1 / root_of_aspect, root_of_aspect), 1)  # (B, 2): height, width
    lengths = (area.sqrt()[:, None] * proportions * side).round().clamp(1, side)
    # If a random number is just below 1, the product can be rounded up to the next whole number.
    # That start would be too large by 1, so `minimum` limits it.
    starts = (uniform[:, 2:4] * (side - lengths + 1)).floor().minimum(side - lengths)
    return torch.cat((starts, lengths), 1).long()


def resize_one_by_one(canvases: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Resize one box of each canvas: uint8 (B, R, R, 3) -> uint8 (B, S, S, 3).

    A crop is mirrored if its element of `mirrored` (B,) is true.
    """
    squares = np.empty((len(canvases), size, size, 3), np.uint8)
    for canvas, (top, left, height, width), square in zip(
        canvases.numpy(), boxes.tolist(), squares, strict=True
    ):
        # NumPy makes the copy, because torch would start its threads for these few bytes.
        box_pixels = np.ascontiguousarray(canvas[None, top : top + height, left : left + width])
        box = torch.from_numpy(box_pixels)
        resized = nn.functional.interpolate(
            box.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True
        )
        square[:] = resized[0].permute(1, 2, 0).numpy()
    is_mirrored = mirrored.numpy()
    squares[is_mirrored] = torch.from_numpy(squares).flip(2).numpy()[is_mirrored]
    return torch.from_numpy(squares)


def resize_together(canvases: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Do the same as `resize_one_by_one` with two batched matrix products, in floating point.

    Under autocast, the products run in bfloat16. Its eight significant bits are enough for pixels.
    """
    batch, side = canvases.shape[:2]
    starts, lengths = boxes.split(2, dim=1)
    rows = _interpolation(starts[:, 0], lengths[:, 0], side, size)
    columns = _interpolation(starts[:, 1], lengths[:, 1], side, size)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    pixels = canvases.permute(0, 1, 3, 2)  # (B, R, 3, R): a row's reds, greens and blues
    lines = pixels.to(_product_dtype(canvases.device), memory_format=torch.contiguous_format)
    squeezed = torch.bmm(rows, lines.view(batch, side, 3 * side)).view(batch, size * 3, side)
    resized = torch.bmm(squeezed, columns.mT).view(batch, size, 3, size)
    return resized.permute(0, 1, 3, 2)  # (B, S, S, 3)


def mix(squares: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Mixture | None]:
    """Apply mixup or cutmix to the pairs of a batch (B, S, S, 3): images 0 and 1, 2 and 3, ...

    `targets` (B,) are the class indices. Cutmix changes the images in place. Mixup changes float32
    images in place and returns a float32 copy of uint8 images. If B is odd, the last image does not
    change. If `draws` asks for neither method, the images do not change and no Mixture is returned.
    """
    if draws.blended is None and draws.pasted is None:
        return squares, None
    if draws.blended is not None:
        squares = squares.float()
    num_paired = len(squares) // 2 * 2
    evens, odds = squares[0:num_paired:2], squares[1:num_paired:2]
    others = targets.clone()
    others[0:num_paired:2] = targets[1:num_paired:2]
    others[1:num_paired:2] = targets[0:num_paired:2]
    if draws.blended is not None:
        before = evens.clone()
        evens.lerp_(odds, 1 - draws.blended)
        odds.lerp_(before, 1 - draws.blended)
        return squares, Mixture(draws.blended, others)
    assert draws.pasted is not None
    size = squares.shape[1]
    top, bottom, left, right = _cutmix_rectangle(*draws.pasted, size)
    evens, odds = evens[:, top:bottom, left:right], odds[:, top:bottom, left:right]
    before = evens.clone()
    evens.copy_(odds)
    odds.copy_(before)
    return squares, Mixture(1 - (bottom - top) * (right - left) / size**2, others)


def _cutmix_rectangle(
    share: float, row: float, column: float, size: int
) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the rectangle that a cutmix exchanges, in pixels.

    The rectangle covers a share of 1 - `share` of the image. Any part outside the image is cut off.
    """
    half = (1 - share) ** 0.5 * size / 2

    def clipped(pixel: float) -> int:
        return min(max(round(pixel), 0), size)

    row_px, column_px = row * size, column * size
    return (
        clipped(row_px - half),
        clipped(row_px + half),
        clipped(column_px - half),
        clipped(column_px + half),
    )


def _mirrored(uniform: Tensor) -> Tensor:
    return uniform[:, 4] < 0.5


def _product_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which autocast computes matrix products, or float32 without autocast.

    Pixels are converted from uint8 to this dtype in one pass.
    """
    is_enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_enabled else torch.float32


def _interpolation(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (B, size, side) that resize the `length` pixels after `start` to `size` pixels.

    The weights of an output pixel form a triangle around its centre. On each side, the triangle
    reaches to the centre of the next output pixel. If that is nearer than one input pixel, the
    triangle reaches one input pixel far. It is cut off at the edges of the box.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixels = torch.arange(side, device=start.device)
    outputs = torch.arange(size, device=start.device)
    centres = start + (outputs[:, None] + 0.5) * length / size - 0.5
    weights = (1 - (pixels - centres).abs() / (length / size).clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels >= start) & (pixels < start + length))
    return weights / weights.sum(2, keepdim=True)
