"""The similarity of two pictures. Resized, recompressed, brightened or cropped copies are similar.

The pictures are aligned by a small stretch and shift, separately for each axis (Lucas and Kanade
1981). Then the aligned pictures are compared as a whole and in their details.
benchmarks/duplicates.py measures how well the similarity separates copies from other photographs.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.array_types import Floats, Rows
from training.data.images import Pixels

Box = tuple[float, float, float, float]
"""The left, top, right and bottom of a box, as shares of the picture's width and height."""
Side = tuple[float, float]
"""The two ends of a box on one axis."""

COARSE_PX = 16
"""Side of the squares that are compared first."""
FINE_PX = 48
"""Side of the squares that the similarity is computed from."""
CELL_PX = 8
"""Side of the cells of a fine square. The details are compared cell by cell."""
ALIGNMENT_STEPS_PX = (8, 16, 16, 16, 32, 48)
"""Sides of the squares that are compared, one per step of the alignment."""
MIN_CORRELATION = 0.6
"""Minimum correlation of two coarse squares. Pairs with a lower correlation are not aligned. In a
test with 3,000 pairs that show the same picture, the lowest correlation was 0.66."""
MAX_COLOUR_SHIFT = 48
"""Maximum difference of the mean colours, which are from 0 to 255. The brightness may change by a
fifth, but a blue shirt and a red shirt are different pictures."""
MIN_OVERLAP = 0.85
"""Minimum share of each side that remains after the alignment."""
MAX_MOTION = 0.08
"""Maximum shift and stretch of one alignment step, as a share of the side."""
MIN_CONTRAST = 0.2
"""Minimum contrast of one picture relative to the other. If the contrast is lower, the pictures
have nothing in common that can be aligned."""
RESEMBLANCE_BLOCK_PAIRS = 4096
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def similarity(one: Image.Image, other: Image.Image) -> float:
    """The similarity of two pictures, 0 to 1.

    It is the correlation of the aligned squares (48, 48, 3), times the mean correlation of their 36
    cells of 8 x 8 pixels. The first factor compares the whole pictures. The second factor compares
    the details. For example, two shirts on the same floor differ only in the details. If
    `resembles` is false for the two pictures, the similarity is 0. A change of size, a change of
    brightness or a small crop hardly affects the similarity.
    """
    coarse = np.stack([square_of(picture, COARSE_PX) for picture in (one, other)])
    if not resembles(coarse, np.array([[0, 1]]))[0]:
        return 0.0
    squares = _best_aligned(one, other)
    whole = _correlation(*squares)
    details = _correlation(*(_cells(square) for square in squares), noise=10.0).mean()
    return float(np.clip(whole, 0, 1) * np.clip(details, 0, 1))


def resembles(squares: Pixels | Floats, pairs: Rows) -> npt.NDArray[np.bool_]:
    """A mask (n,) of the pairs of squares that have similar mean colours and similar coarse shapes.

    `pairs` (n, 2) are positions in `squares` (m, S, S, 3). The squares have values from 0 to 255.
    """
    answers = [np.empty(0, np.bool_)]
    for start in range(0, len(pairs), RESEMBLANCE_BLOCK_PAIRS):
        block = pairs[start : start + RESEMBLANCE_BLOCK_PAIRS]
        one, other = (squares[positions].astype(np.float32) for positions in block.T)
        shift = np.abs(one.mean((1, 2)) - other.mean((1, 2))).max(1)
        answers.append((shift <= MAX_COLOUR_SHIFT) & (_correlation(one, other) >= MIN_CORRELATION))
    return np.concatenate(answers)


def square_of(picture: Image.Image, side: int, box: Box = WHOLE) -> Floats:
    """The part of the picture in the box, resized to (side, side, 3) float32, 0 to 255."""
    width, height = picture.size
    left, top, right, bottom = box
    pixels = (left * width, top * height, right * width, bottom * height)
    return np.asarray(
        picture.resize((side, side), Image.Resampling.BILINEAR, box=pixels), np.float32
    )


def _best_aligned(one: Image.Image, other: Image.Image) -> tuple[Floats, Floats]:
    """Align two pictures. Return the two squares (48, 48, 3) with the highest correlation."""
    boxes = (WHOLE, WHOLE)
    squares = square_of(one, FINE_PX), square_of(other, FINE_PX)
    best, correlation = squares, _correlation(*squares)
    for side in ALIGNMENT_STEPS_PX:
        motion = _motion(square_of(one, side, boxes[0]), square_of(other, side, boxes[1]))
        if motion is None:
            break
        boxes = _moved(*boxes, motion)
        if min(box[axis + 2] - box[axis] for box in boxes for axis in (0, 1)) < MIN_OVERLAP:
            break
        squares = square_of(one, FINE_PX, boxes[0]), square_of(other, FINE_PX, boxes[1])
        if (moved := _correlation(*squares)) > correlation:
            best, correlation = squares, moved
    return best


def _cells(square: Floats) -> Floats:
    """Cut a square (S, S, 3) into cells (cells, 8, 8, 3)."""
    per_side = len(square) // CELL_PX
    rows = square.reshape(per_side, CELL_PX, per_side, CELL_PX, 3)
    return rows.swapaxes(1, 2).reshape(-1, CELL_PX, CELL_PX, 3)


def _correlation(one: Floats, other: Floats, *, noise: float = 4.0) -> Floats:
    """The correlations (...) of two arrays of squares (..., S, S, 3), over all pixels and channels.

    The mean of each channel is subtracted first. Squares whose variance is much smaller than
    `noise` count as equal.
    """
    one, other = _centred(one), _centred(other)
    axes = (-3, -2, -1)
    covariance = (one * other).mean(axes)
    spread = np.sqrt((one * one).mean(axes) * (other * other).mean(axes))
    return np.asarray((covariance + noise) / (spread + noise), np.float32)


def _centred(squares: Floats) -> Floats:
    """The squares (..., S, S, 3) with the mean of each channel subtracted."""
    centred: Floats = squares - squares.mean((-3, -2), keepdims=True)
    return centred


def _motion(one: Floats, other: Floats) -> Floats | None:
    """Find the motion that makes square `one` most similar to `other`.

    The motion is (x shift, x stretch, y shift, y stretch), as shares of the side. It is exact to
    first order. The contrast of the two squares may differ. The result is None if the squares have
    nothing in common.
    """
    side = len(one)
    position = ((np.arange(side) + 0.5) / side).astype(np.float32)
    by_y, by_x = (
        np.asarray(gradient, np.float32) * side for gradient in np.gradient(one, axis=(0, 1))
    )
    x_stretch, y_stretch = by_x * position[None, :, None], by_y * position[:, None, None]
    causes: list[Floats] = [one, by_x, x_stretch, by_y, y_stretch]
    matrix = np.stack([_centred(cause).ravel() for cause in causes], 1)  # (pixels, 5)
    normal = matrix.T @ matrix
    # Damping is needed: a picture of stripes does not determine the motion along the stripes.
    normal += np.diag(1e-3 * np.diag(normal) + 1e-3)
    contrast, *motion = np.linalg.solve(normal, matrix.T @ _centred(other).ravel())
    if contrast <= MIN_CONTRAST:
        return None
    clipped = np.clip(np.array(motion) / contrast, -MAX_MOTION, MAX_MOTION)
    return np.asarray(clipped, np.float32)


def _moved(one: Box, other: Box, motion: Floats) -> tuple[Box, Box]:
    """Move the boxes of both pictures, and cut them to the part that both pictures show."""
    x_shift, x_stretch, y_shift, y_stretch = motion.tolist()
    one_x, other_x = _moved_sides((one[0], one[2]), (other[0], other[2]), x_shift, x_stretch)
    one_y, other_y = _moved_sides((one[1], one[3]), (other[1], other[3]), y_shift, y_stretch)
    return (
        (one_x[0], one_y[0], one_x[1], one_y[1]),
        (other_x[0], other_y[0], other_x[1], other_y[1]),
    )


def _moved_sides(one: Side, other: Side, shift: float, stretch: float) -> tuple[Side, Side]:
    """Move the low and the high end of both boxes on one axis."""
    low, high = one
    scale = (high - low) * (1 + stretch) / (other[1] - other[0])
    # In the coordinates of `one`, the whole of `other` extends from `start` to `start + scale`.
    start = low + (high - low) * shift - scale * other[0]
    ends = max(0.0, start), min(1.0, start + scale)
    first, last = (float(np.clip((end - start) / scale, 0, 1)) for end in ends)
    return ends, (first, last)
