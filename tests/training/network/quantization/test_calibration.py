"""Ranges of bytes have the least error, and the means of a network are measured."""

import numpy as np
import pytest

from tests.training.network.quantization.networks import made_up_squares
from training.network.onnx_session import Floats, open_session
from training.network.quantization.calibration import (
    NUM_MEAN_SQUARES,
    Calibration,
    Range,
    best_range,
    sums_by_channel,
)
from training.network.quantization.float_network import FloatNetwork


def error(samples: Floats, limits: Range) -> float:
    """The squared error after a conversion to bytes and back."""
    steps = np.rint(samples / limits.scale) + int(limits.zero_point)
    restored = (np.clip(steps, 0, 255) - int(limits.zero_point)) * limits.scale
    return float(np.square(samples - restored).sum())


def drawn(kind: str) -> Floats:
    random = np.random.default_rng(0)
    values = {
        "even": random.uniform(0, 4, 20000),
        "long tail": np.maximum(random.normal(0, 1, 20000), 0) ** 3,
        "signed": random.normal(0, 1, 20000),
        "mostly zero": np.where(random.uniform(size=20000) < 0.95, 0, random.gamma(1, 1, 20000)),
    }
    return values[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["even", "long tail", "signed", "mostly zero"])
def test_no_other_range_has_a_clearly_smaller_error(kind: str) -> None:
    samples = drawn(kind)
    low, high = min(float(samples.min()), 0.0), float(samples.max())
    best = best_range(samples, low, high)
    least = min(error(samples, Range(low * share, high * share)) for share in np.linspace(0.1, 1))
    assert error(samples, best) <= 1.05 * least


def test_even_values_keep_their_whole_range_and_a_single_outlier_is_cut_off() -> None:
    even = np.linspace(0, 1, 200_000, dtype=np.float32)
    assert best_range(even, 0, 1).high == pytest.approx(1, rel=0.02)
    with_outlier = np.append(even, np.float32(1.4))
    assert 1 <= best_range(with_outlier, 0, 1.4).high < 1.2


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (-1.0, 3.0), (-5.0, 0.0)])
def test_zero_is_a_byte_of_its_own(low: float, high: float) -> None:
    limits = Range(low, high)
    assert error(np.zeros(1, np.float32), limits) == 0
    assert float(limits.scale) == pytest.approx((high - low) / 255)
    ends = np.array([low, high], np.float32)
    assert error(ends, limits) < (float(limits.scale)) ** 2


def test_values_that_are_all_zero_have_a_range_without_a_division_by_zero() -> None:
    limits = best_range(np.zeros(9, np.float32), 0.0, 0.0)
    assert (limits.low, limits.high) == (0.0, 0.0)
    assert limits.scale > 0


def test_all_tensors_that_become_bytes_have_a_range(
    network: FloatNetwork, calibration: Calibration
) -> None:
    for layer in network.layers:
        assert layer.source in calibration.ranges
        assert (layer.output in calibration.ranges) or not layer.is_convolution
    assert "logits" not in calibration.ranges
    assert calibration.ranges[network.layers[0].source].low < -50  # pixels minus their mean
    assert calibration.ranges[network.layers[0].output].low == 0


def test_means_are_those_of_the_first_calibration_images(
    network: FloatNetwork, calibration: Calibration
) -> None:
    squares = made_up_squares(24)[:NUM_MEAN_SQUARES]
    np.testing.assert_array_equal(calibration.mean_squares, squares)
    results = [layer.result for layer in network.layers]
    session = open_session(network.with_outputs(results).SerializeToString())
    for name, values in zip(results, session.run(results, {"images": squares}), strict=True):
        axes = (0, 2, 3) if values.ndim == 4 else 0
        np.testing.assert_allclose(calibration.means[name], values.mean(axes), atol=1e-4)
        assert calibration.sizes[name] == values[0].size


def test_sums_by_channel_add_the_images() -> None:
    maps = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    np.testing.assert_allclose(sums_by_channel(maps), maps.mean((2, 3)).sum(0))
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(sums_by_channel(rows), rows.sum(0))
