"""Measure the values inside the network in float32, to choose the steps of its 8-bit numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.images import Pixels
from training.network.onnx_session import (
    BATCH_SIZE,
    Floats,
    open_session,
    outputs_of_batches,
)
from training.network.quantization.float_network import FloatNetwork

METHOD = "least squared error"
"""The method of the calibration, as model.json names it."""
NUM_LEVELS = 256
SAMPLES_PER_SQUARE = 8192
"""Number of values of a tensor that are kept per square."""
NUM_MEAN_SQUARES = BATCH_SIZE
"""Maximum number of squares for the means of the channels. It is a multiple of the batch size. A
mean needs fewer images than a range."""
NUM_BINS = 2048
SHARES = np.linspace(0.1, 1.0, 91)
"""The ranges that are tried, as shares of the range of all values."""


@dataclass(frozen=True)
class Range:
    """The range of the values that a byte represents: `low` <= 0 <= `high`."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """The step between two neighbouring bytes."""
        return np.float32(max(self.high - self.low, 1e-6) / (NUM_LEVELS - 1))

    @property
    def zero_point(self) -> np.uint8:
        """The byte that represents 0."""
        return np.uint8(np.clip(round(-self.low / float(self.scale)), 0, NUM_LEVELS - 1))


@dataclass(frozen=True)
class Calibration:
    """The values of a network in float32 on the calibration images."""

    ranges: dict[str, Range]
    """The ranges of the tensors that enter or leave a layer."""
    sizes: dict[str, int]
    """The number of values of a tensor for one image."""
    mean_squares: Pixels
    """The first of the calibration images, (n, S, S, 3) uint8."""
    means: dict[str, Floats]
    """The mean of each channel of a layer's result on `mean_squares`, (O,), by the result."""


def calibrate(
    network: FloatNetwork,
    squares: Pixels,
    find_range: Callable[[Floats, float, float], Range] | None = None,
) -> Calibration:
    """Measure a network on squares (N, S, S, 3) uint8.

    `find_range` is the method that finds the range of a tensor: `best_range`, or another function
    with the same arguments.
    """
    find_range = find_range or best_range
    tensors = list(
        dict.fromkeys(
            tensor
            for layer in network.layers
            for tensor in (layer.source, *((layer.output,) if layer.is_convolution else ()))
        )
    )
    results = [layer.result for layer in network.layers]
    names = list(dict.fromkeys([*tensors, *results]))
    samples: dict[str, list[Floats]] = {name: [] for name in tensors}
    ends = dict.fromkeys(tensors, (0.0, 0.0))
    mean_squares = squares[:NUM_MEAN_SQUARES]
    means: dict[str, Floats] = {result: np.zeros(1, np.float32) for result in results}
    session = open_session(network.with_outputs(names).SerializeToString())
    sizes: dict[str, int] = {}
    num_seen = 0
    for batch in outputs_of_batches(session, names, squares):
        for name, values in zip(names, batch, strict=True):
            sizes[name] = values[0].size
            if name in means and num_seen < len(mean_squares):
                means[name] = means[name] + sums_by_channel(values) / np.float32(len(mean_squares))
            if name in ends:
                low, high = ends[name]
                ends[name] = min(low, float(values.min())), max(high, float(values.max()))
                samples[name].append(_sample(values))
        num_seen += len(batch[0])
    ranges = {name: find_range(np.concatenate(samples[name]), *ends[name]) for name in tensors}
    return Calibration(ranges, sizes, mean_squares, means)


def sums_by_channel(values: Floats) -> Floats:
    """Sum the means of each channel over the images: (B, O) or (B, O, H, W) -> (O,)."""
    per_image = values.mean((2, 3)) if values.ndim == 4 else values
    return np.asarray(per_image.sum(0))


def best_range(samples: Floats, low: float, high: float) -> Range:
    """The range with the least squared error between the samples (n,) and their bytes.

    `low` and `high` are the least and the greatest of all values. A smaller range has finer steps,
    but it cuts off the values outside of it. Zeros are always exact, so they do not count.
    """
    return range_with_least(_squared_error, samples, low, high)


def range_with_least(
    error: Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64], float, float], float],
    samples: Floats,
    low: float,
    high: float,
) -> Range:
    """The range with the least error of the samples (n,), apart from zeros.

    `error(counts, centres, low, high)` is the error of a range. The counts are those of a histogram
    of the samples, and the centres are those of its bins.
    """
    samples = samples[samples != 0]
    if not len(samples) or high <= low:
        return Range(min(low, 0.0), max(high, 0.0))
    counts, edges = np.histogram(samples, NUM_BINS, (low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    errors = [error(counts, centres, low * share, high * share) for share in SHARES]
    share = SHARES[int(np.argmin(errors))]
    return Range(float(low * share), float(high * share))


def _squared_error(
    counts: npt.NDArray[np.int64],
    centres: npt.NDArray[np.float64],
    low: float,
    high: float,
) -> float:
    """The error of values in a histogram. Rounding errors are spread evenly over a step."""
    step = (high - low) / (NUM_LEVELS - 1)
    cut = centres - np.clip(centres, low, high)
    return float((counts * np.where(cut == 0, step**2 / 12, cut**2)).sum())


def _sample(values: Floats) -> Floats:
    """Evenly spread values of a batch."""
    flat = values.reshape(-1)
    # An odd step does not meet the same column of every row.
    step = max(1, len(flat) // (SAMPLES_PER_SQUARE * len(values))) | 1
    return flat[::step].copy()
