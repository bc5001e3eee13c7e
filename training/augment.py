"""Random crops, flips, colour noise and mixing, a batch at a time, on whichever device holds it.

Every random number of a step follows from the recipe's seed, the epoch and the step: see `Draws`. It is drawn for the whole
batch and then cut, so that several processes with a part of the batch each do together what one does alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.recipe import Recipe

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
        blended = float(random.beta(recipe.mixup, recipe.mixup)) if recipe.mixup and not pastes else None
        pasted = (float(random.beta(recipe.cutmix, recipe.cutmix)), random.random(), random.random()) if pastes else None
        return Draws(uniform, normal, blended, pasted)

    def part(self, start: int, end: int) -> "Draws":
        """Those of the images `start` to `end` of the batch."""
        return Draws(self.uniform[start:end], self.normal[start:end], self.blended, self.pasted)


@dataclass(frozen=True)
class Mixture:
    """What a mixed batch is of: `share` of each image is its own, the rest its partner's, whose class numbers are `others` (B,)."""

    share: float
    others: Tensor


def augment(canvases: Tensor, recipe: Recipe, draws: Draws, colour_axes: Tensor | None = None) -> Tensor:
    """uint8 canvases (B, R, R, 3) -> training squares (B, S, S, 3) in 0..255: uint8, or floating-point where they were resized or coloured.

    `colour_axes` (3, 3) are those of `training.preprocessing.PixelStatistics`; None leaves the colours as they are.
    """
    uniform = draws.uniform.to(canvases.device)
    if recipe.crop == "random":
        squares = random_crops(canvases, recipe.image_size, uniform, flip=recipe.flip)
    else:
        squares = random_resized_crops(canvases, recipe.image_size, uniform, min_area=recipe.min_crop_area, flip=recipe.flip)
    if colour_axes is None or not recipe.colour_noise:
        return squares
    shifts = recipe.colour_noise * draws.normal.to(squares.device) @ colour_axes  # (B, 3)
    return squares + shifts[:, None, None, :]


def random_crops(canvases: Tensor, size: int, uniform: Tensor, *, flip: bool) -> Tensor:
    """A random square of each canvas, every other one mirrored (section 4.1): (B, R, R, 3) -> (B, S, S, 3), same dtype.

    `uniform` (B, 5), as of `Draws`, lies on the canvases' device.
    """
    batch, side = canvases.shape[:2]
    device = canvases.device
    offsets = (uniform[:, 2:4] * (side - size + 1)).long().clamp(max=side - size)  # a float32 just under 1 may round to it
    along = torch.arange(size, device=device)
    rows, columns = offsets[:, :1] + along, offsets[:, 1:] + along  # (B, S) each
    if flip:
        columns = torch.where(_mirrored(uniform)[:, None], columns.flip(1), columns)
    images = torch.arange(batch, device=device)[:, None, None]
    return canvases[images, rows[:, :, None], columns[:, None, :]]


def random_resized_crops(canvases: Tensor, size: int, uniform: Tensor, *, min_area: float, flip: bool) -> Tensor:
    """A random rectangle of each canvas, `min_area` to all of it, aspect ratio 3:4 to 4:3, resized: -> floating-point (B, S, S, 3).

    Szegedy et al. 2015, section 6. Bilinear, as two batched matrix products: several times as fast as a general sampling grid,
    and in bfloat16 under autocast, whose eight bits are the pixels' own.
    """
    side = canvases.shape[1]
    area = min_area + (1 - min_area) * uniform[:, 0]
    root_of_aspect = (4 / 3) ** (uniform[:, 1] - 0.5)
    lengths = (area.sqrt()[:, None] * torch.stack((1 / root_of_aspect, root_of_aspect), 1)).clamp(max=1) * side  # (B, 2): height, width
    starts = uniform[:, 2:4] * (side - lengths)
    rows = _interpolation(starts[:, 0], lengths[:, 0], side, size)
    columns = _interpolation(starts[:, 1], lengths[:, 1], side, size)
    if flip:
        columns = torch.where(_mirrored(uniform)[:, None, None], columns.flip(1), columns)
    rows, columns = rows[:, None], columns[:, None]  # (B, 1, S, R) each
    planes = canvases.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # (B, 3, R, R)
    return (rows @ planes @ columns.mT).permute(0, 2, 3, 1)


def mix(squares: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Mixture | None]:
    """Blends or pastes each image with its neighbour in the batch, 0 with 1, 2 with 3 and so on: (B, S, S, 3) -> the same."""
    if draws.blended is None and draws.pasted is None:
        return squares, None
    partners = torch.arange(len(squares), device=squares.device)
    pairs = partners[: len(squares) // 2 * 2]
    partners[: len(pairs)] = pairs ^ 1  # the last of an odd number stays alone
    if draws.blended is not None:
        squares = squares.float()
        return torch.lerp(squares[partners], squares, draws.blended), Mixture(draws.blended, targets[partners])
    assert draws.pasted is not None
    share, row, column = draws.pasted
    size = squares.shape[1]
    half = (1 - share) ** 0.5 * size / 2
    top, bottom, left, right = (
        min(max(round(place * size + reach), 0), size) for place in (row, column) for reach in (-half, half)
    )  # fmt: skip
    mixed = squares.clone()
    mixed[:, top:bottom, left:right] = squares[partners, top:bottom, left:right]
    return mixed, Mixture(1 - (bottom - top) * (right - left) / size**2, targets[partners])


def _mirrored(uniform: Tensor) -> Tensor:
    return uniform[:, 4] < 0.5


def _interpolation(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(B, size, side) weights that sample [start, start + length) of `side` pixels at `size` places, linearly between pixels."""
    places = start[:, None] + (torch.arange(size, device=start.device) + 0.5) / size * length[:, None] - 0.5  # (B, size), in pixels
    places = places.clamp(0, side - 1)
    return (1 - (places[:, :, None] - torch.arange(side, device=start.device)).abs()).clamp(min=0)
