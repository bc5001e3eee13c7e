"""The statistics of the training pixels, compared with NumPy's."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from training.data.images import Pixels, canvas_px, centre
from training.data.loader import batches
from training.network.preprocessing import PixelStatistics, measure_pixels


@pytest.fixture(scope="module")
def canvases() -> Pixels:
    """Reddish canvases, brighter from left to right, with correlated channels.

    There are more of them than one batch of sums holds.
    """
    side = canvas_px(67)
    random = np.random.default_rng(0)
    brightness = random.integers(0, 60, (300, side, side, 1)) * np.array([1.0, 0.9, 0.5])
    noise = random.integers(0, 30, (300, side, side, 3))
    gradient = np.arange(side)[:, None] // 2
    return np.asarray(brightness + noise + np.array([110, 60, 20]) + gradient, np.uint8)


@pytest.fixture(scope="module")
def statistics(canvases: Pixels) -> PixelStatistics:
    return measure_pixels(canvases, 67)


def pixels_of(canvases: Pixels) -> npt.NDArray[np.float64]:
    """Every pixel of the central squares, (N, 3)."""
    return centre(canvases, 67).reshape(-1, 3).astype(np.float64)


def test_the_mean_image_equals_numpys_mean_of_the_central_squares(
    canvases: Pixels, statistics: PixelStatistics
) -> None:
    squares = canvases[:, 5:72, 5:72].astype(np.float64)
    np.testing.assert_allclose(statistics.mean_image, squares.mean(0), rtol=1e-15)
    np.testing.assert_allclose(statistics.mean, squares.mean((0, 1, 2)), rtol=1e-14)


def test_the_covariance_equals_numpys_over_all_images_and_positions(
    canvases: Pixels, statistics: PixelStatistics
) -> None:
    expected = np.cov(pixels_of(canvases), rowvar=False, bias=True)
    assert expected[0, 1] > 100  # the channels are correlated
    np.testing.assert_allclose(statistics.covariance, expected, rtol=1e-10)
    np.testing.assert_allclose(statistics.deviation, pixels_of(canvases).std(0), rtol=1e-10)


def test_the_colour_axes_are_orthogonal_and_span_the_covariance(
    statistics: PixelStatistics,
) -> None:
    axes = statistics.colour_axes
    np.testing.assert_allclose(axes.T @ axes, statistics.covariance, rtol=1e-9)
    between = axes @ axes.T
    np.testing.assert_allclose(between - np.diag(np.diag(between)), 0, atol=1e-9)


def test_the_length_of_a_colour_axis_is_the_deviation_along_it(
    canvases: Pixels, statistics: PixelStatistics
) -> None:
    lengths = np.linalg.norm(statistics.colour_axes, axis=1)
    directions = statistics.colour_axes / lengths[:, None]
    np.testing.assert_allclose((pixels_of(canvases) @ directions.T).std(0), lengths, rtol=1e-4)


def test_the_variance_of_very_bright_and_very_dark_images_is_exact() -> None:
    side = canvas_px(67)
    for level in (0, 255):
        canvases = np.full((300, side, side, 3), level, np.uint8)
        canvases[::2] ^= 2  # half of them differ by two levels
        statistics = measure_pixels(canvases, 67)
        np.testing.assert_allclose(statistics.mean, abs(level - 1), rtol=1e-14)
        np.testing.assert_allclose(statistics.covariance, 1, rtol=1e-10)


def test_the_size_of_a_batch_changes_nothing(
    canvases: Pixels, statistics: PixelStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.preprocessing.STATISTICS_BATCH_SIZE", 7)
    again = measure_pixels(canvases, 67)
    np.testing.assert_array_equal(again.mean_image, statistics.mean_image)
    np.testing.assert_array_equal(again.covariance, statistics.covariance)


def test_the_brightest_images_are_summed_exactly_at_any_size() -> None:
    for side in (67, 69, 96):
        statistics = measure_pixels(np.full((20, side, side, 3), 255, np.uint8), side)
        assert np.all(statistics.mean_image == 255)
        assert np.all(statistics.covariance == 0)


def test_the_images_are_read_in_small_batches(
    canvases: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_sizes: list[int] = []

    def counted(source: Pixels, chosen: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
        for batch in batches(source, chosen, device):
            batch_sizes.append(len(batch))
            yield batch

    monkeypatch.setattr("training.network.preprocessing.batches", counted)
    measure_pixels(canvases, 67)
    assert sum(batch_sizes) == len(canvases)
    assert max(batch_sizes) <= 32


@pytest.mark.gpu
def test_a_gpu_gives_the_same_statistics_to_the_last_bit(
    canvases: Pixels, statistics: PixelStatistics
) -> None:
    on_gpu = measure_pixels(canvases, 67, torch.device("cuda"))
    np.testing.assert_array_equal(on_gpu.mean_image, statistics.mean_image)
    np.testing.assert_array_equal(on_gpu.covariance, statistics.covariance)


def test_blank_images_have_a_deviation_of_one_and_no_colour_axes() -> None:
    statistics = measure_pixels(np.full((2, 77, 77, 3), 40, np.uint8), 67)
    assert statistics.mean.tolist() == [40, 40, 40]
    assert statistics.deviation.tolist() == [1, 1, 1]
    np.testing.assert_array_equal(statistics.colour_axes, 0)
