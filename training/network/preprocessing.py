"""What the training images' pixels are like: the mean that the network subtracts, and the colour axes of the noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.images import Pixels
from training.data.loader import batches, squares

Floats = npt.NDArray[np.float64]
CPU = torch.device("cpu")
BATCH_SIZE = 16
"""Few enough images that a batch stays in a CPU's cache from one pass over it to the next."""
NUM_EXACT = 256
"""As many products of two bytes as sum to less than 2^24, below which float32 holds every integer."""
PIXELS_A_ROW = 4
"""Matrices of 3 columns are too narrow for a CPU's matrix product; of 12, it multiplies four times as much in half the time."""


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


def measure_pixels(canvases: Pixels, size: int, device: torch.device = CPU) -> PixelStatistics:
    """The statistics of canvases (N, R, R, 3), a few at a time on `device`; their sums are exact, so every device finds the same."""
    count = len(canvases)
    total = torch.zeros((size, size, 3), dtype=torch.int64, device=device)
    products = torch.zeros((3, 3), dtype=torch.float64, device=device)
    for batch in batches(canvases, torch.arange(count).split(BATCH_SIZE), device):
        pixels = squares(batch, size).float()
        total += pixels.sum(0).long()
        products += _sum_of_products(pixels)
    mean_image = total.cpu().numpy() / count
    mean = mean_image.mean((0, 1))
    covariance = products.cpu().numpy() / (count * size * size) - np.outer(mean, mean)
    return PixelStatistics(mean_image, covariance)


def _sum_of_products(pixels: Tensor) -> Tensor:
    """(3, 3): each pair of channels' products, summed over pixels (B, S, S, 3) that hold whole numbers of 0..255, exactly."""
    columns = 3 * PIXELS_A_ROW
    padded = torch.nn.functional.pad(pixels.flatten(), (0, -pixels.numel() % (NUM_EXACT * columns)))
    rows = padded.view(-1, NUM_EXACT, columns)
    together = (rows.mT @ rows).sum(
        0, dtype=torch.float64
    )  # of every pair among a row's pixels: those of one pixel are wanted
    return together.view(PIXELS_A_ROW, 3, PIXELS_A_ROW, 3).diagonal(dim1=0, dim2=2).sum(2)
