"""Weights are rounded to the nearest step of their channel, and biases fit into 32 bits."""

from dataclasses import replace

import numpy as np
import pytest

from training.network.quantization.calibration import Calibration
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.rounding import MAX_WEIGHT, Int8Layer


def test_each_weight_is_at_most_half_a_step_away(
    network: FloatNetwork, calibration: Calibration
) -> None:
    for layer in network.layers:
        rounded = Int8Layer.of(layer, calibration)
        steps = rounded.steps.reshape(-1, *[1] * (layer.weight.ndim - 1))
        assert rounded.weight.dtype == np.int8
        assert rounded.weight.shape == layer.weight.shape
        assert np.abs(rounded.weight.astype(int)).max() == MAX_WEIGHT
        error = np.abs(rounded.weight * steps - layer.weight)
        assert (error <= 0.5001 * steps).all()
        assert rounded.input == calibration.ranges[layer.source]
        expected = calibration.ranges[layer.output] if layer.is_convolution else None
        assert rounded.output == expected
        np.testing.assert_array_equal(rounded.bias, layer.bias)


def test_every_channel_uses_all_steps(network: FloatNetwork, calibration: Calibration) -> None:
    layer = network.layers[1]
    scaled = layer.weight * np.logspace(-3, 0, len(layer.weight)).reshape(-1, 1, 1, 1)
    rounded = Int8Layer.of(replace(layer, weight=scaled.astype(np.float32)), calibration)
    assert (np.abs(rounded.weight.astype(int)).max((1, 2, 3)) == MAX_WEIGHT).all()


def test_the_bias_of_a_channel_without_weights_fits_into_32_bits(
    network: FloatNetwork, calibration: Calibration
) -> None:
    layer = network.layers[1]
    weight, bias = layer.weight.copy(), layer.bias.copy()
    weight[:2], bias[:2] = 0, (1000, 0)
    rounded = Int8Layer.of(replace(layer, weight=weight, bias=bias), calibration)
    in_steps = np.rint(rounded.bias / (rounded.input.scale * rounded.steps).astype(np.float64))
    assert np.abs(in_steps).max() < 2**31
    assert in_steps[0] * rounded.input.scale * rounded.steps[0] == pytest.approx(1000)
    assert not rounded.weight[:2].any()
