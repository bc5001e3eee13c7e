"""Random crops and flips of a batch at once, on whichever device holds it."""

import torch
from torch import Tensor

from training.recipe import Recipe


def augment(canvases: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """uint8 canvases (B, R, R, 3) -> training squares (B, S, S, 3), uint8, or float32 in 0..255 where they were resized."""
    if recipe.crop == "random":
        return random_crops(canvases, recipe.image_size, generator, flip=recipe.flip)
    return random_resized_crops(canvases, recipe.image_size, generator, min_area=recipe.min_crop_area, flip=recipe.flip)


def random_crops(canvases: Tensor, size: int, generator: torch.Generator, *, flip: bool) -> Tensor:
    """A random square of each canvas, every other one mirrored (section 4.1): (B, R, R, 3) -> (B, S, S, 3), same dtype."""
    batch, side = canvases.shape[:2]
    device = canvases.device
    offsets = torch.randint(0, side - size + 1, (2, batch, 1), generator=generator).to(device)
    along = torch.arange(size, device=device)
    rows, columns = offsets[0] + along, offsets[1] + along  # (B, S) each
    if flip:
        mirrored = (torch.rand(batch, 1, generator=generator) < 0.5).to(device)
        columns = torch.where(mirrored, columns.flip(1), columns)
    images = torch.arange(batch, device=device)[:, None, None]
    return canvases[images, rows[:, :, None], columns[:, None, :]]


def random_resized_crops(canvases: Tensor, size: int, generator: torch.Generator, *, min_area: float, flip: bool) -> Tensor:
    """A random rectangle of each canvas, `min_area` to all of it, aspect ratio 3:4 to 4:3, resized: -> float32 (B, S, S, 3).

    Szegedy et al. 2015, section 6. Bilinear, as two batched matrix products: several times as fast as a general sampling grid.
    """
    batch, side = canvases.shape[:2]
    device = canvases.device
    area = torch.empty(batch).uniform_(min_area, 1, generator=generator)
    aspect = torch.empty(batch).uniform_(-1, 1, generator=generator).mul(torch.tensor(4 / 3).log()).exp().sqrt()
    lengths = (area.sqrt() * torch.stack((1 / aspect, aspect))).clamp(max=1) * side  # (2, B): height, width
    starts = torch.rand(2, batch, generator=generator) * (side - lengths)
    rows = _interpolation(starts[0], lengths[0], side, size).to(device)
    columns = _interpolation(starts[1], lengths[1], side, size)
    if flip:
        mirrored = torch.rand(batch, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    columns = columns.to(device)
    pixels = canvases.float().reshape(batch, side, side * 3)
    tall = torch.bmm(rows, pixels).reshape(batch, size, side, 3)  # (B, S, R, 3)
    return torch.einsum("bxr,byrc->byxc", columns, tall)


def _interpolation(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(B, size, side) weights that sample [start, start + length) of `side` pixels at `size` places, linearly between pixels."""
    places = start[:, None] + (torch.arange(size) + 0.5) / size * length[:, None] - 0.5  # (B, size), in pixels
    places = places.clamp(0, side - 1)
    return (1 - (places[:, :, None] - torch.arange(side)).abs()).clamp(min=0)
