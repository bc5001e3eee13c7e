"""Random crops, flips, colour noise and mixing. The pixels of a canvas name their position."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import resized_crop

from training.learning.augment import (
    Draws,
    augment,
    mix,
    random_boxes,
    random_crops,
    random_resized_crops,
    resize_one_by_one,
    resize_together,
)
from training.learning.distributed import Workers
from training.learning.recipe import RECIPES, Recipe, modern, paper

COLOUR_AXES = torch.tensor([[40.0, 30.0, 20.0], [-9.0, 2.0, 15.0], [2.0, -5.0, 3.0]])
MIXING = Recipe(image_size=67, mixup=0.2, cutmix=1.0)


def canvases(count: int, side: int) -> Tensor:
    """uint8 (count, side, side, 3): ten times a pixel's row, column and canvas (modulo 25)."""
    rows = torch.arange(side)[:, None].expand(side, side)
    columns = torch.arange(side).expand(side, side)
    where = torch.stack((rows, columns), 2).expand(count, side, side, 2)
    which = (torch.arange(count) % 25)[:, None, None, None].expand(count, side, side, 1)
    return (10 * torch.cat((where, which), 3)).to(torch.uint8)


def numbers(count: int, seed: int = 0) -> Tensor:
    """The random numbers of crops and flips, (count, 5)."""
    return torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))


def noise(count: int, side: int, seed: int = 0) -> Tensor:
    """Random uint8 canvases (count, side, side, 3)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


def draws(
    count: int, *, blended: float | None = None, pasted: tuple[float, float, float] | None = None
) -> Draws:
    return Draws(numbers(count), torch.zeros(count, 3), blended, pasted)


def test_a_random_crop_is_a_part_of_its_own_canvas_mirrored_or_not() -> None:
    whole = canvases(200, 12)
    for number, crop in enumerate(random_crops(whole, 8, numbers(200), flip=True)):
        row, left = int(crop[0, 0, 0]) // 10, int(crop[0, 0, 1]) // 10
        right = int(crop[0, -1, 1]) // 10
        part = whole[number, row : row + 8, min(left, right) : max(left, right) + 1]
        assert torch.equal(crop, part if left < right else part.flip(1))
        assert crop.dtype == torch.uint8


def test_every_offset_and_its_mirror_is_reached_about_equally_often() -> None:
    crops = random_crops(canvases(18_000, 10), 8, numbers(18_000), flip=True)
    rows = crops[:, 0, 0, 0] // 10
    columns = torch.minimum(crops[:, 0, 0, 1], crops[:, 0, -1, 1]) // 10
    is_mirrored = crops[:, 0, 0, 1] // 70
    variants, counts = torch.stack((rows, columns, is_mirrored), 1).unique(
        dim=0, return_counts=True
    )
    # For 224 of 256 pixels there are 33 * 33 * 2 = 2178; the paper says a factor of 2048.
    assert len(variants) == 3 * 3 * 2
    assert counts.min() > 850
    assert counts.max() < 1150


def test_without_flip_nothing_is_mirrored() -> None:
    for crops in (
        random_crops(canvases(200, 12), 8, numbers(200), flip=False),
        random_resized_crops(canvases(200, 12), 8, numbers(200), min_area=0.3, flip=False),
    ):
        assert (crops[:, 0, 0, 1] < crops[:, 0, -1, 1]).all()


def test_a_canvas_of_the_squares_size_has_one_crop() -> None:
    whole = canvases(5, 12)
    assert torch.equal(random_crops(whole, 12, numbers(5), flip=False), whole)


@pytest.mark.parametrize("resize", [resize_one_by_one, resize_together])
@pytest.mark.parametrize("size", [12, 24, 40])
def test_a_resized_crop_equals_torchvisions(
    resize: Callable[[Tensor, Tensor, Tensor, int], Tensor], size: int
) -> None:
    whole = noise(50, 24)
    boxes = random_boxes(numbers(50), 24, min_area=0.1)
    mirrored = torch.arange(50) % 2 == 1
    crops = resize(whole, boxes, mirrored, size)
    assert crops.shape == (50, size, size, 3)
    crops = torch.where(mirrored[:, None, None, None], crops.flip(2), crops)
    for canvas, box, crop in zip(whole, boxes.tolist(), crops, strict=True):
        by_torchvision = resized_crop(canvas.permute(2, 0, 1), *box, [size, size]).permute(1, 2, 0)
        # torchvision rounds twice: after resizing the rows and after resizing the columns.
        torch.testing.assert_close(crop.float(), by_torchvision.float(), rtol=0, atol=1.5)


def test_a_box_of_the_whole_canvas_at_its_own_size_changes_nothing() -> None:
    whole, all_of_it = noise(3, 12), torch.tensor([[0, 0, 12, 12]] * 3)
    mirrored = torch.tensor([False, False, False])
    assert torch.equal(resize_one_by_one(whole, all_of_it, mirrored, 12), whole)
    torch.testing.assert_close(resize_together(whole, all_of_it, mirrored, 12), whole.float())


def test_resizing_in_bfloat16_is_as_close_as_a_pixel_can_be_stored() -> None:
    whole, boxes = noise(20, 24), random_boxes(numbers(20), 24, min_area=0.1)
    mirrored = torch.zeros(20, dtype=torch.bool)
    exact = resize_together(whole, boxes, mirrored, 16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = resize_together(whole, boxes, mirrored, 16)
    assert rounded.dtype == torch.bfloat16
    # Values up to 255 are rounded to steps of 1 after each of two products.
    torch.testing.assert_close(rounded.float(), exact, rtol=0.01, atol=2)


def test_half_of_the_resized_crops_are_mirrored() -> None:
    whole, uniform = canvases(500, 24), numbers(500)
    plain, mirrored = (
        random_resized_crops(whole, 8, uniform, min_area=0.2, flip=flip) for flip in (False, True)
    )
    is_mirrored = mirrored[:, 0, 0, 1] > mirrored[:, 0, -1, 1]
    assert 200 < int(is_mirrored.sum()) < 300
    assert torch.equal(mirrored[~is_mirrored], plain[~is_mirrored])
    assert torch.equal(mirrored[is_mirrored], plain[is_mirrored].flip(2))


@pytest.mark.parametrize("min_area", [0.2, 0.7])
def test_boxes_cover_the_smallest_area_or_more_and_their_sides_differ_by_a_third_at_most(
    min_area: float,
) -> None:
    side = 1000
    top, left, height, width = random_boxes(numbers(5000), side, min_area).unbind(1)
    areas, ratios = height * width / side**2, width / height
    assert min_area - 0.002 < areas.min() < min_area + 0.02
    assert 0.99 < areas.max() <= 1
    assert 0.748 < ratios.min() < 0.76
    assert 1.31 < ratios.max() < 1.336
    assert int(top.min()) == int(left.min()) == 0
    assert int((top + height).max()) == int((left + width).max()) == side


def test_every_position_of_a_box_is_reached_about_equally_often() -> None:
    uniform = numbers(30_000)
    uniform[:, :2] = 0.5
    boxes = random_boxes(uniform, 10, min_area=0.6)  # 9 x 9 of 10 x 10
    variants, counts = boxes.unique(dim=0, return_counts=True)
    assert variants.tolist() == [[0, 0, 9, 9], [0, 1, 9, 9], [1, 0, 9, 9], [1, 1, 9, 9]]
    assert counts.min() > 7200
    assert counts.max() < 7800


def test_a_number_just_under_one_gives_the_last_position() -> None:
    highest = torch.full((1, 5), 1 - 2**-24)
    crops = random_crops(canvases(1, 25), 8, highest, flip=False)
    assert crops[0, 0, 0, :2].tolist() == [10 * 17, 10 * 17]
    highest[:, 0] = 0.2
    top, left, height, width = random_boxes(highest, 1000, min_area=0.2)[0].tolist()
    assert (top + height, left + width) == (1000, 1000)


@pytest.mark.parametrize("name", RECIPES)
def test_the_draws_decide_everything(name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name](), image_size=67)
    first, again, other = (
        augment(noise(16, 77), recipe, Draws.of(recipe, 16, 0, step), COLOUR_AXES)
        for step in (1, 1, 2)
    )
    assert first.shape == (16, 67, 67, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_recipe_says_whether_crops_are_resized_and_mirrored() -> None:
    whole = canvases(16, 24).repeat(1, 4, 4, 1)[:, :77, :77]
    for flip in (True, False):
        recipe = dataclasses.replace(paper(), image_size=67, flip=flip)
        assert torch.equal(
            augment(whole, recipe, draws(16)), random_crops(whole, 67, numbers(16), flip=flip)
        )
        recipe = dataclasses.replace(modern(), image_size=67, flip=flip, min_crop_area=0.5)
        resized = random_resized_crops(whole, 67, numbers(16), min_area=0.5, flip=flip)
        assert torch.equal(augment(whole, recipe, draws(16)), resized)


def test_the_seed_the_epoch_and_the_step_decide_the_draws() -> None:
    def drawn(seed: int, epoch: int, step: int) -> list[float]:
        draws = Draws.of(dataclasses.replace(MIXING, seed=seed), 4, epoch, step)
        return [
            *draws.uniform.flatten().tolist(),
            *draws.normal.flatten().tolist(),
            draws.blended or 0.0,
            *(draws.pasted or ()),
        ]

    steps = [(seed, epoch, step) for seed in (0, 1, 7) for epoch in range(5) for step in range(5)]
    assert all(drawn(*numbers) == drawn(*numbers) for numbers in steps[:10])
    first_draws = {tuple(drawn(*numbers)[:32]) for numbers in steps}
    assert len(first_draws) == len(steps)


def test_the_draws_of_an_epoch_are_uniform_and_normal() -> None:
    steps = [Draws.of(MIXING, 100, 3, step) for step in range(100)]
    uniform = torch.cat([step.uniform for step in steps])
    normal = torch.cat([step.normal for step in steps])
    assert (uniform.shape, normal.shape) == ((10_000, 5), (10_000, 3))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    torch.testing.assert_close(uniform.mean(0), torch.full((5,), 0.5), rtol=0, atol=0.02)
    torch.testing.assert_close(normal.T.cov(), torch.eye(3), rtol=0, atol=0.05)


def test_a_part_of_the_draws_has_the_same_numbers() -> None:
    whole = Draws.of(MIXING, 10, 2, 3)
    parts = [whole.part(start, end) for start, end in ((0, 4), (4, 10))]
    assert torch.equal(torch.cat([part.uniform for part in parts]), whole.uniform)
    assert torch.equal(torch.cat([part.normal for part in parts]), whole.normal)
    assert {(part.blended, part.pasted) for part in parts} == {(whole.blended, whole.pasted)}


def test_every_batch_takes_the_only_mixing_or_one_of_the_two() -> None:
    for mixup, cutmix, least, most in (
        (0.0, 0.0, 0, 0),
        (0.2, 0.0, 0, 0),
        (0.0, 1.0, 200, 200),
        (0.2, 1.0, 80, 120),
    ):
        steps = [
            Draws.of(dataclasses.replace(MIXING, mixup=mixup, cutmix=cutmix), 2, 0, step)
            for step in range(200)
        ]
        assert least <= sum(step.pasted is not None for step in steps) <= most
        assert all(
            (step.blended is not None) + (step.pasted is not None) == (mixup + cutmix > 0)
            for step in steps
        )


def test_a_small_alpha_leaves_one_of_two_images_almost_unmixed() -> None:
    for alpha, nearly_whole in ((0.05, 0.7), (20.0, 0.0)):
        recipe = dataclasses.replace(MIXING, mixup=alpha, cutmix=0.0)
        shares = torch.tensor([Draws.of(recipe, 2, 0, step).blended or 0.0 for step in range(300)])
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.1)
        assert float(((shares < 0.1) | (shares > 0.9)).float().mean()) >= nearly_whole
        assert alpha < 1 or float(shares.std()) < 0.1


def test_colour_noise_shifts_all_pixels_of_an_image_alike() -> None:
    recipe = Recipe(image_size=67, colour_noise=0.1)
    step = Draws.of(recipe, 8, 0, 0)
    coloured = augment(noise(8, 77), recipe, step, COLOUR_AXES)
    shifts = coloured - augment(noise(8, 77), recipe, step).float()
    torch.testing.assert_close(shifts, shifts[:, :1, :1].expand_as(shifts), rtol=0, atol=1e-4)
    by_hand = [
        [
            0.1 * sum(float(step.normal[image, axis] * COLOUR_AXES[axis, c]) for axis in range(3))
            for c in range(3)
        ]
        for image in range(8)
    ]
    torch.testing.assert_close(shifts[:, 0, 0], torch.tensor(by_hand), rtol=0, atol=1e-4)


def test_colour_noise_has_the_covariance_of_the_training_colours_scaled_down() -> None:
    recipe = Recipe(image_size=67, colour_noise=0.1, flip=False)
    grey = torch.full((100, 67, 67, 3), 128, dtype=torch.uint8)
    shifts = torch.cat(
        [
            augment(grey, recipe, Draws.of(recipe, 100, 0, step), COLOUR_AXES)[:, 0, 0] - 128
            for step in range(50)
        ]
    )
    covariance = 0.1**2 * COLOUR_AXES.T @ COLOUR_AXES
    torch.testing.assert_close(shifts.mean(0), torch.zeros(3), rtol=0, atol=0.3)
    tolerance = float(covariance.max()) / 12
    torch.testing.assert_close(shifts.T.cov(), covariance, rtol=0, atol=tolerance)


def test_without_colour_noise_or_its_axes_a_random_crop_keeps_its_bytes() -> None:
    step = draws(4)
    for recipe, axes in (
        (Recipe(image_size=67), COLOUR_AXES),
        (Recipe(image_size=67, colour_noise=0.1), None),
    ):
        squares = augment(noise(4, 77), recipe, step, axes)
        assert squares.dtype == torch.uint8


def test_mixup_blends_neighbours_and_the_last_of_an_odd_batch_keeps_its_pixels() -> None:
    squares = noise(5, 4)
    targets = torch.tensor([10, 11, 12, 13, 14])
    mixed, mixture = mix(squares, targets, draws(5, blended=0.75))
    assert mixture is not None
    assert (mixture.share, mixture.others.tolist()) == (0.75, [11, 10, 13, 12, 14])
    for image, partner in enumerate((1, 0, 3, 2, 4)):
        expected = 0.75 * squares[image].float() + 0.25 * squares[partner].float()
        torch.testing.assert_close(mixed[image], expected)
    assert torch.equal(mixed[4], squares[4].float())
    assert targets.tolist() == [10, 11, 12, 13, 14]


def test_cutmix_pastes_a_rectangle_of_the_neighbour_at_the_same_position() -> None:
    squares = noise(5, 8)
    before = squares.clone()
    targets = torch.tensor([10, 11, 12, 13, 14])
    # A quarter of 8 x 8 pixels is 4 x 4, centred on row 4 and column 2.
    mixed, mixture = mix(squares, targets, draws(5, pasted=(0.75, 0.5, 0.25)))
    assert mixture is not None
    assert (mixture.share, mixture.others.tolist()) == (0.75, [11, 10, 13, 12, 14])
    for image, partner in enumerate((1, 0, 3, 2, 4)):
        by_hand = before[image].clone()
        by_hand[2:6, 0:4] = before[partner][2:6, 0:4]
        assert torch.equal(mixed[image], by_hand)


@pytest.mark.parametrize(
    "pasted",
    [
        (0.5, 0.0, 0.0),
        (0.3, 1.0, 0.4),
        (0.0, 0.5, 0.5),
        (0.0, 0.1, 0.9),
        (1.0, 0.3, 0.3),
        (0.9, 0.01, 0.99),
    ],
)
def test_the_share_of_a_cutmix_counts_only_the_rectangle_within_the_square(
    pasted: tuple[float, float, float],
) -> None:
    blank = torch.zeros(2, 67, 67, 3, dtype=torch.uint8)
    blank[1] = 1
    mixed, mixture = mix(blank, torch.tensor([0, 1]), draws(2, pasted=pasted))
    assert mixture is not None
    assert float(mixed[0].float().mean()) == pytest.approx(1 - mixture.share, abs=1e-6)
    assert float(mixed[1].float().mean()) == pytest.approx(mixture.share, abs=1e-6)
    assert 0 <= mixture.share <= 1


def test_without_mixing_the_squares_stay_as_they_are() -> None:
    squares = noise(3, 8)
    mixed, mixture = mix(squares, torch.arange(3), draws(3))
    assert mixed is squares
    assert mixture is None


@pytest.mark.parametrize("crop", ["random", "resized"])
@pytest.mark.parametrize(("batch_size", "num_workers"), [(9, 2), (8, 3), (7, 3), (3, 2)])
def test_parts_of_a_batch_augmented_and_mixed_separately_make_up_the_whole(
    crop: str, batch_size: int, num_workers: int
) -> None:
    recipe = MIXING.with_settings([f"crop={crop}", "colour_noise=0.1"])
    whole, targets = noise(batch_size, 77), torch.arange(batch_size)
    for step in range(8):  # mixups and cutmixes
        drawn = Draws.of(recipe, batch_size, 0, step)
        squares, mixture = mix(augment(whole, recipe, drawn, COLOUR_AXES), targets, drawn)
        assert mixture is not None
        for rank in range(num_workers):
            part = Workers(rank, num_workers).part(batch_size)
            mine, own = slice(part.start, part.end), drawn.part(part.start, part.end)
            some_squares, some_mixture = mix(
                augment(whole[mine], recipe, own, COLOUR_AXES), targets[mine], own
            )
            assert some_mixture is not None
            torch.testing.assert_close(some_squares, squares[mine], rtol=0, atol=1e-3)
            assert some_mixture.share == mixture.share
            assert torch.equal(some_mixture.others, mixture.others[mine])
    assert len({Draws.of(recipe, batch_size, 0, step).pasted is None for step in range(8)}) == 2
