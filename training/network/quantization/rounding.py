"""A layer of the network as it is written: its weights in bytes, or in float32."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.network.onnx_session import Floats
from training.network.quantization.calibration import Calibration, Range
from training.network.quantization.float_network import Layer

MAX_WEIGHT = 127
MAX_BIAS = 2**30
"""Greatest bias in steps. It leaves room in 32 bits for the sums that are added to it."""
MIN_STEP = 1e-12


@dataclass(frozen=True)
class Int8Layer:
    """A layer that multiplies bytes."""

    layer: Layer
    input: Range
    output: Range | None
    """None for a fully connected layer, which returns float32."""
    weight: npt.NDArray[np.int8]
    """(O, ...), in steps of `steps`."""
    steps: Floats
    """(O,)"""
    bias: Floats
    """(O,)"""

    @classmethod
    def of(cls, layer: Layer, calibration: Calibration) -> "Int8Layer":
        """Round the weights of a layer, with one step per output channel."""
        ranges = calibration.ranges
        flat = layer.weight.reshape(len(layer.weight), -1)
        # The bias is a multiple of the step too. If a channel has tiny weights, the bias would
        # need more than 32 bits with the step that its weights need.
        min_steps = np.abs(layer.bias) / (MAX_BIAS * ranges[layer.source].scale)
        largest = np.maximum(flat.max(1), -flat.min(1))
        steps = np.maximum(largest / MAX_WEIGHT, np.maximum(min_steps, MIN_STEP))
        steps = steps.astype(np.float32)
        rounded = flat / steps[:, None]
        np.rint(rounded, out=rounded)
        np.clip(rounded, -MAX_WEIGHT, MAX_WEIGHT, out=rounded)
        return cls(
            layer=layer,
            input=ranges[layer.source],
            output=ranges[layer.output] if layer.is_convolution else None,
            weight=rounded.astype(np.int8).reshape(layer.weight.shape),
            steps=steps,
            bias=layer.bias,
        )


@dataclass(frozen=True)
class FloatLayer:
    """A layer in float32."""

    layer: Layer
    bias: Floats
    """(O,)"""


FinishedLayer = Int8Layer | FloatLayer
"""A layer as it is written."""
