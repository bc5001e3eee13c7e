"""What the training images' pixels are like: the mean that the network subtracts, and the colour axes of the noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.images import Pixels, centre

Floats = npt.NDArray[np.float64]
ORIGIN = 127.5  # sums of squares around the middle of the range lose fewer digits than around zero
BATCH_SIZE = 256


@dataclass(frozen=True)
class PixelStatistics:
    """Of all training images' central squares, in units of 0..255."""

    mean_image: Floats
    """(S, S, 3): Krizhevsky et al. 2012, section 2."""
    covariance: Floats
    """(3, 3), of the pixels' RGB values over all images and places."""

    @property
    def mean(self) -> Floats:
        """Each channel's mean, (3,)."""
        return np.asarray(self.mean_image.mean((0, 1)))

    @property
    def deviation(self) -> Floats:
        """Each channel's standard deviation, (3,); 1 for a blank channel, which has none."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 1.0))

    @property
    def colour_axes(self) -> Floats:
        """(3, 3): a row each, the covariance's eigenvectors times the square roots of their eigenvalues.

        Section 4.1 prints the eigenvalues themselves, which in 0..255 would drown the image; the published code takes the roots.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0))).T)


def measure_pixels(canvases: Pixels, size: int) -> PixelStatistics:
    """The statistics of canvases (N, R, R, 3), a few at a time."""
    total = np.zeros((size, size, 3))
    products = np.zeros((3, 3))
    for start in range(0, len(canvases), BATCH_SIZE):
        batch: npt.NDArray[Any] = centre(canvases[start : start + BATCH_SIZE], size).astype(np.float32) - np.float32(ORIGIN)
        total += batch.sum(0, dtype=np.float64)
        for image in batch.reshape(len(batch), -1, 3):  # one at a time: a longer sum in float32 would round
            products += image.T @ image
    mean_image = total / len(canvases)
    mean = mean_image.mean((0, 1))
    covariance = products / (len(canvases) * size * size) - np.outer(mean, mean)
    return PixelStatistics(mean_image + ORIGIN, covariance)
