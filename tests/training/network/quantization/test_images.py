"""No image has two uses, and the draw is always the same."""

import numpy as np
import pytest

from training.data.examples import DataError
from training.data.images import Pixels
from training.network.quantization.images import QUICK, Amounts, Images, divide


def numbered(count: int, first: int = 0) -> Pixels:
    """Squares (count, 1, 1, 3) that contain their numbers."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return numbers[:, None, None, None].repeat(3, 3)


def numbers(squares: Pixels) -> list[int]:
    return [int(number) for number in squares[:, 0, 0, 0]]


def divided(num_train: int, num_held_out: int, **amounts: int) -> Images:
    held_out = numbered(num_held_out, first=num_train)
    targets = np.arange(num_train, num_train + num_held_out)
    return divide(numbered(num_train), held_out, targets, Amounts(**amounts))


def test_every_image_has_one_use() -> None:
    images = divided(100, 20, calibration=10, choice=30, indexed=50, report=15)
    parts = (images.calibration, images.choice, images.others, images.report)
    assert [len(part) for part in parts] == [10, 30, 40, 15]
    used = [number for part in parts for number in numbers(part)]
    assert len(set(used)) == len(used)
    assert min(numbers(images.report)) >= 100
    assert images.targets is not None
    assert numbers(images.report) == images.targets.tolist()
    again = divided(100, 20, calibration=10, choice=30, indexed=50, report=15)
    assert numbers(again.choice) == numbers(images.choice)


def test_of_few_images_half_calibrate_and_half_choose() -> None:
    images = divided(9, 3)
    parts = (images.calibration, images.choice, images.others, images.report)
    assert [len(part) for part in parts] == [5, 4, 0, 3]


def test_the_quick_amounts_choose_nothing_and_compare_with_many() -> None:
    images = divide(numbered(200), numbered(50), None, QUICK)
    assert (len(images.calibration), len(images.choice)) == (QUICK.calibration, 0)
    assert len(images.others) == 200 - QUICK.calibration
    assert images.targets is None


@pytest.mark.parametrize(("num_train", "num_held_out"), [(1, 5), (0, 5), (5, 0)])
def test_too_few_images_are_refused(num_train: int, num_held_out: int) -> None:
    expected = f"at least 2 images .* there are {num_train} and {num_held_out}; pass more images"
    with pytest.raises(DataError, match=expected):
        divided(num_train, num_held_out)
