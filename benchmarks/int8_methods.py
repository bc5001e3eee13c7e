"""Ways to make a network in int8: other ranges of the bytes, and other layers in float32."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from training.network.onnx_session import Floats
from training.network.quantization.calibration import (
    NUM_LEVELS,
    Range,
    calibrate,
    range_with_least,
)
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.images import Images
from training.network.quantization.int8_network import round_layers
from training.network.quantization.layer_choice import Comparison, choose_layers
from training.network.quantization.rounding import FinishedLayer, Int8Layer

DEFAULT, EVERY, FULLY_CONNECTED = "default", "all layers", "fully connected layers only"
PERCENTILE = 99.99


def methods(
    network: FloatNetwork, images: Images, choice: Comparison
) -> Iterator[tuple[str, Sequence[FinishedLayer]]]:
    """The layers of a network by each method, the default first.

    `choice` are the images that choose the layers of the default.
    """
    squares = images.calibration
    calibration = calibrate(network, squares)
    yield DEFAULT, choose_layers(network, calibration, choice)
    yield EVERY, round_layers(network, calibration)
    convolutions = [layer.name for layer in network.layers if layer.is_convolution]
    connected = [layer.name for layer in network.layers if not layer.is_convolution]
    for name, float32 in (
        (FULLY_CONNECTED, convolutions),
        ("convolutions only", connected),
        (f"all layers but {convolutions[0]}", convolutions[:1]),
    ):
        yield name, round_layers(network, calibration, float32=float32)
    uncorrected = [Int8Layer.of(layer, calibration) for layer in network.layers]
    yield "all layers, without corrected biases", uncorrected
    for name, find_range in RANGES.items():
        others = calibrate(network, squares, find_range)
        yield f"all layers, {name}", round_layers(network, others)
    more = np.concatenate([squares, images.others[: 3 * len(squares)]])
    yield f"all layers, {len(more)} images", round_layers(network, calibrate(network, more))


def whole_range(samples: Floats, low: float, high: float) -> Range:
    """The range of all values."""
    return Range(min(low, 0.0), max(high, 0.0))


def percentile_range(samples: Floats, low: float, high: float) -> Range:
    """The range without the largest 0.01 % of the samples (n,), and without the smallest."""
    low, high = np.percentile(samples, [100 - PERCENTILE, PERCENTILE])
    return Range(min(float(low), 0.0), max(float(high), 0.0))


def entropy_range(samples: Floats, low: float, high: float) -> Range:
    """The range whose bytes are distributed most like the samples (n,), apart from zeros.

    The measure is the Kullback-Leibler divergence between two histograms (Migacz 2017).
    """
    return range_with_least(_divergence, samples, low, high)


def _divergence(
    counts: npt.NDArray[np.int64], centres: npt.NDArray[np.float64], low: float, high: float
) -> float:
    """The divergence of the bytes of a range from a histogram whose tails are cut off."""
    (inside,) = np.nonzero((centres >= low) & (centres <= high))
    kept = counts[inside].astype(np.float64)
    expected = kept.copy()
    expected[0] += counts[: inside[0]].sum()
    expected[-1] += counts[inside[-1] + 1 :].sum()
    levels = ((centres[inside] - low) / (high - low) * (NUM_LEVELS - 1)).round().astype(np.int64)
    is_used = kept > 0
    num_used = np.bincount(levels, is_used, NUM_LEVELS)[levels]
    found = np.bincount(levels, kept, NUM_LEVELS)[levels] / np.maximum(num_used, 1) * is_used
    # A bin that is empty apart from the tail gets a little, so that the divergence stays finite.
    found = np.maximum(found, 1e-3)
    is_expected = expected > 0
    p, q = expected[is_expected] / expected.sum(), found[is_expected] / found.sum()
    return float((p * np.log(p / q)).sum())


RANGES: dict[str, Callable[[Floats, float, float], Range]] = {
    "range of all values": whole_range,
    f"percentile {PERCENTILE}": percentile_range,
    "entropy": entropy_range,
}
"""Other methods of the calibration."""
