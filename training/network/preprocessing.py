"""Statistics of the training pixels: the mean image, and the axes of the colour noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.images import Pixels
from training.data.loader import batches, squares

Doubles = npt.NDArray[np.float64]
CPU = torch.device("cpu")
STATISTICS_BATCH_SIZE = 16
"""Number of images per batch. A batch is read twice. A small batch stays in the CPU's cache between
the two reads."""
ROWS_PER_PRODUCT = 256
"""Number of rows per matrix product. A sum of 256 products of two bytes is below 2^24. Up to 2^24,
float32 represents every integer exactly."""
PIXELS_PER_ROW = 4
"""Number of pixels per row of a matrix. A CPU multiplies matrices of 3 columns slowly. With the 12
columns of 4 pixels, it does four times the work in half the time."""


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the central squares of all training images, in units of 0..255."""

    mean_image: Doubles
    """The mean of all squares, (S, S, 3); Krizhevsky et al. 2012, section 2."""
    covariance: Doubles
    """The covariance of the RGB values over all images and all positions, (3, 3)."""

    @property
    def mean(self) -> Doubles:
        """The mean of each channel, (3,)."""
        return np.asarray(self.mean_image.mean((0, 1)))

    @property
    def deviation(self) -> Doubles:
        """The standard deviation of each channel, (3,).

        The network divides by these values. So a value below 1 is replaced by 1. For example, if
        all pixels of a channel are equal, their standard deviation is 0.
        """
        return np.sqrt(np.maximum(np.diag(self.covariance), 1.0))

    @property
    def colour_axes(self) -> Doubles:
        """The eigenvectors of the covariance, one per row, (3, 3).

        The length of each eigenvector is the square root of its eigenvalue, as in the published
        code. This is the standard deviation along the eigenvector. Section 4.1 uses the eigenvalue
        itself as the length. With pixels in 0..255, noise of this size would hide the image.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0))).T)


def measure_pixels(canvases: Pixels, size: int, device: torch.device = CPU) -> PixelStatistics:
    """Compute the statistics of canvases (N, R, R, 3) on `device`, batch by batch.

    The sums are exact, so every device gives the same result.
    """
    num_images = len(canvases)
    sums = torch.zeros((size, size, 3), dtype=torch.int64, device=device)
    products = torch.zeros((3, 3), dtype=torch.float64, device=device)
    for batch in batches(canvases, torch.arange(num_images).split(STATISTICS_BATCH_SIZE), device):
        pixels = squares(batch, size).float()  # (B, S, S, 3)
        sums += pixels.sum(0).long()
        products += _sum_of_products(pixels)
    mean_image = sums.cpu().numpy() / num_images
    mean = mean_image.mean((0, 1))
    second_moment = products.cpu().numpy() / (num_images * size * size)
    return PixelStatistics(mean_image, second_moment - np.outer(mean, mean))


def _sum_of_products(pixels: Tensor) -> Tensor:
    """Sum the products of each pair of channels: pixels (B, S, S, 3) -> (3, 3).

    The sums are exact if the pixels are whole numbers in 0..255.
    """
    columns = 3 * PIXELS_PER_ROW
    padding = -pixels.numel() % (ROWS_PER_PRODUCT * columns)
    padded = torch.nn.functional.pad(pixels.flatten(), (0, padding))
    rows = padded.view(-1, ROWS_PER_PRODUCT, columns)  # (blocks, 256, 12)
    products = (rows.mT @ rows).sum(0, dtype=torch.float64)  # (12, 12), all pairs of a row's pixels
    by_pixel = products.view(PIXELS_PER_ROW, 3, PIXELS_PER_ROW, 3)
    return by_pixel.diagonal(dim1=0, dim2=2).sum(2)  # (3, 3), the pairs of a pixel with itself
