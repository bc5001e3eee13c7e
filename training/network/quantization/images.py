"""The images for a network in int8: some calibrate, others choose the layers, others report."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.examples import DataError
from training.data.images import Pixels
from training.network.quantization.agreement import Targets

MIN_TRAINING_IMAGES = 2
"""One image calibrates, and one chooses."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Maximum numbers of images, by their use."""

    calibration: int = 96
    choice: int = 512
    indexed: int = 1000
    """Number of training images whose features take the place of an index. They include the
    images for the calibration, but not those for the choice, which are queries."""
    report: int = 1000


QUICK = Amounts(calibration=64, choice=0, indexed=400, report=128)
"""Amounts for a few seconds in all. Without images for the choice, all layers are int8."""


@dataclass(frozen=True)
class Images:
    """Squares (n, S, S, 3) uint8, by their use."""

    calibration: Pixels
    choice: Pixels
    others: Pixels
    """They take the place of an index, together with `calibration`."""
    report: Pixels
    targets: Targets | None
    """The class indices of `report`, (n,). None if the network does not know the labels."""


def divide(train: Pixels, held_out: Pixels, targets: Targets | None, amounts: Amounts) -> Images:
    """Draw images at random, always the same ones.

    `train` and `held_out` are squares (N, S, S, 3). `targets` are the class indices of `held_out`.
    Raises DataError if there are too few images.
    """
    if len(train) < MIN_TRAINING_IMAGES or not len(held_out):
        raise DataError(
            f"int8 needs at least {MIN_TRAINING_IMAGES} images to calibrate and one image to "
            f"compare, but there are {len(train)} and {len(held_out)}; pass more images"
        )
    random = np.random.default_rng(0)
    order = random.permutation(len(train))
    num_calibrating = min(amounts.calibration, len(train) - len(train) // 2)
    num_choosing = min(amounts.choice, len(train) - num_calibrating)
    ends = np.cumsum([num_calibrating, num_choosing])
    num_others = max(amounts.indexed - num_calibrating, 0)
    calibration, choice, others = np.split(order[: ends[1] + num_others], ends)
    reported = np.sort(random.permutation(len(held_out))[: amounts.report])
    return Images(
        _taken(train, calibration),
        _taken(train, choice),
        _taken(train, others),
        _taken(held_out, reported),
        None if targets is None else targets[reported],
    )


def _taken(squares: Pixels, positions: npt.NDArray[np.int64]) -> Pixels:
    """The squares at some positions, in the order of the file that they are in."""
    return np.ascontiguousarray(squares[np.sort(positions)])
