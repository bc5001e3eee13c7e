"""Random crops and flips, on canvases whose pixels say where they come from."""

import dataclasses

import pytest
import torch
from torch import Tensor

from training.augment import augment, random_crops, random_resized_crops
from training.recipe import RECIPES, modern, paper


def canvases(count: int, side: int) -> Tensor:
    """uint8 (count, side, side, 3): a pixel's channels are its row, its column and the number of its canvas (modulo 25), times 10."""
    rows, columns = torch.arange(side)[:, None].expand(side, side), torch.arange(side).expand(side, side)
    where = torch.stack((rows, columns), 2).expand(count, side, side, 2)
    which = (torch.arange(count) % 25)[:, None, None, None].expand(count, side, side, 1)
    return (10 * torch.cat((where, which), 3)).to(torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_random_crop_is_a_part_of_its_own_canvas_perhaps_mirrored() -> None:
    whole = canvases(200, 12)
    for number, crop in enumerate(random_crops(whole, 8, generator(), flip=True)):
        row, left, right = int(crop[0, 0, 0]) // 10, int(crop[0, 0, 1]) // 10, int(crop[0, -1, 1]) // 10
        part = whole[number, row : row + 8, min(left, right) : max(left, right) + 1]
        assert torch.equal(crop, part if left < right else part.flip(1))
        assert crop.dtype == torch.uint8


def test_every_offset_and_its_mirror_is_reached_about_equally_often() -> None:
    crops = random_crops(canvases(18_000, 10), 8, generator(), flip=True)
    seen = torch.stack((crops[:, 0, 0, 0] // 10, torch.minimum(crops[:, 0, 0, 1], crops[:, 0, -1, 1]) // 10, crops[:, 0, 0, 1] // 70), 1)
    places, counts = seen.unique(dim=0, return_counts=True)
    assert len(places) == 3 * 3 * 2  # for 224 of 256: 33 * 33 * 2 = 2178, "2048 times more data"
    assert counts.min() > 850
    assert counts.max() < 1150


def test_without_flip_nothing_is_mirrored() -> None:
    for crops in (
        random_crops(canvases(200, 12), 8, generator(), flip=False),
        random_resized_crops(canvases(200, 12), 8, generator(), min_area=0.3, flip=False),
    ):
        assert (crops[:, 0, 0, 1] < crops[:, 0, -1, 1]).all()


def test_a_canvas_of_the_squares_size_has_one_crop() -> None:
    whole = canvases(5, 12)
    assert torch.equal(random_crops(whole, 12, generator(), flip=False), whole)


def test_a_resized_crop_of_all_the_canvas_at_its_own_size_changes_nothing() -> None:
    whole = canvases(200, 12)
    crops = random_resized_crops(whole, 12, generator(), min_area=1, flip=False)
    # An area of all and an aspect ratio other than 1 leave the longer side as long as the canvas: along it, nothing moves.
    is_tall, is_wide, is_its_own = torch.isclose(crops, whole.float(), rtol=0, atol=1e-3).all(1).all(1).unbind(1)
    assert (is_tall | is_wide).all()
    assert 60 < int(is_tall.sum()) < 140
    assert is_its_own.all()


def test_a_resized_crop_stretches_a_part_of_the_canvas_evenly() -> None:
    side, size = 24, 8
    crops = random_resized_crops(canvases(500, side), size, generator(), min_area=0.2, flip=True)
    assert crops.dtype == torch.float32
    rows, columns = crops[:, :, 0, 0] / 10, crops[:, 0, :, 1] / 10
    for places in (rows, columns):
        steps = places.diff(dim=1)
        inner = (places[:, :-1].minimum(places[:, 1:]) > 0) & (places[:, :-1].maximum(places[:, 1:]) < side - 1)  # not clamped at an edge
        mean = (steps * inner).sum(1, keepdim=True) / inner.sum(1, keepdim=True)
        assert ((steps - mean) * inner).abs().max() < 1e-3
    assert rows.diff(dim=1).min() > -1e-3
    mirrored = columns[:, 0] > columns[:, -1]
    assert 200 < int(mirrored.sum()) < 300


@pytest.mark.parametrize("min_area", [0.2, 0.7])
def test_resized_crops_cover_the_least_area_and_their_sides_differ_by_a_third_at_most(min_area: float) -> None:
    side, size = 24, 12
    crops = random_resized_crops(canvases(2000, side), size, generator(), min_area=min_area, flip=False) / 10
    heights = (crops[:, 7, 0, 0] - crops[:, 4, 0, 0]) / 3 * size  # from the middle, where nothing is clamped
    widths = (crops[:, 0, 7, 1] - crops[:, 0, 4, 1]) / 3 * size
    areas = heights * widths / side**2
    assert min_area - 0.005 < areas.min() < min_area + 0.05
    assert areas.max() <= 1.0001
    ratios = widths / heights
    assert 0.749 < ratios.min() < 0.77
    assert 1.30 < ratios.max() < 1.334


def test_resized_crops_reach_all_edges_of_the_canvas() -> None:
    crops = random_resized_crops(canvases(2000, 24), 12, generator(), min_area=0.2, flip=False) / 10
    for channel, last in ((0, crops[:, -1, 0, 0]), (1, crops[:, 0, -1, 1])):
        assert crops[:, 0, 0, channel].min() < 0.5
        assert last.max() > 22.5


@pytest.mark.parametrize("name", RECIPES)
def test_the_generator_alone_decides(name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name](), image_size=67)
    whole = torch.randint(0, 256, (16, 77, 77, 3), dtype=torch.uint8, generator=generator())
    first, again, other = (augment(whole, recipe, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == (16, 67, 67, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_recipe_says_whether_crops_are_resized_and_mirrored() -> None:
    whole = canvases(16, 24).repeat(1, 4, 4, 1)[:, :77, :77]
    for flip in (True, False):
        recipe = dataclasses.replace(paper(), image_size=67, flip=flip)
        assert torch.equal(augment(whole, recipe, generator()), random_crops(whole, 67, generator(), flip=flip))
        recipe = dataclasses.replace(modern(), image_size=67, flip=flip, min_crop_area=0.5)
        resized = random_resized_crops(whole, 67, generator(), min_area=0.5, flip=flip)
        assert torch.equal(augment(whole, recipe, generator()), resized)
