"""Every method gives layers that answer nearly as in float32, and every range is one of bytes."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.int8_methods import (
    DEFAULT,
    EVERY,
    FULLY_CONNECTED,
    RANGES,
    entropy_range,
    methods,
    percentile_range,
    whole_range,
)
from tests.training.network.quantization.networks import made_up_squares, write_random_network
from training.network.onnx_session import Floats, open_session
from training.network.quantization.agreement import Answers
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.images import Images
from training.network.quantization.int8_network import write_network
from training.network.quantization.layer_choice import Comparison
from training.network.quantization.rounding import FloatLayer

CONVOLUTIONS = ["conv1", "conv2", "conv3", "conv4", "conv5"]


def long_tail() -> Floats:
    """Most values are small, and a few are large."""
    values = np.maximum(np.random.default_rng(0).normal(0, 1, 200_000), 0) ** 3
    return values.astype(np.float32)


@pytest.mark.slow  # it makes ten networks
def test_every_method_gives_a_network_that_answers_nearly_as_in_float32(tmp_path: Path) -> None:
    file = write_random_network(tmp_path / "model.onnx")
    session, squares = open_session(file), made_up_squares(32)
    images = Images(squares[:8], squares[8:16], squares[16:], squares, None)
    indexed = Answers.of(session, squares[16:]).features
    choice = Comparison(images.choice, Answers.of(session, images.choice), indexed)
    network = FloatNetwork.read(file)
    all_layers = {name: list(layers) for name, layers in methods(network, images, choice)}
    assert next(iter(all_layers)) == DEFAULT
    in_float32 = {
        name: [one.layer.name for one in layers if isinstance(one, FloatLayer)]
        for name, layers in all_layers.items()
    }
    assert in_float32[EVERY] == []
    assert in_float32[FULLY_CONNECTED] == CONVOLUTIONS
    assert in_float32["convolutions only"] == ["fc6", "fc7", "fc8"]
    assert in_float32["all layers but conv1"] == ["conv1"]
    assert "all layers, 24 images" in all_layers  # of 32 images, 16 are others
    cosines = {
        name: choice.agreement(write_network(network, layers)).cosine
        for name, layers in all_layers.items()
    }
    assert min(cosines.values()) > 0.99
    assert len(set(cosines.values())) >= len(all_layers) - 1  # the default can be another one


def test_the_whole_range_has_all_values_and_zero() -> None:
    assert (whole_range(long_tail(), 0, 70).low, whole_range(long_tail(), 0, 70).high) == (0, 70)
    assert whole_range(long_tail(), 1, 2).low == 0


def test_the_percentile_leaves_out_one_value_of_ten_thousand() -> None:
    values = np.linspace(-1, 3, 40_001, dtype=np.float32)
    limits = percentile_range(values, -1, 3)
    assert limits.low == pytest.approx(-0.9996, abs=1e-4)
    assert limits.high == pytest.approx(2.9996, abs=1e-4)
    assert percentile_range(values[20_000:], 1, 3).low == 0


def test_the_entropy_cuts_off_a_long_tail_and_keeps_even_values() -> None:
    tail = long_tail()
    largest = float(tail.max())
    assert 0.1 * largest <= entropy_range(tail, 0, largest).high < 0.9 * largest
    even = np.linspace(-1, 1, 200_000, dtype=np.float32)
    limits = entropy_range(even, -1, 1)
    assert limits.high == pytest.approx(1, abs=0.02)
    assert limits.low == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize("name", RANGES)
def test_values_that_are_all_zero_have_a_range(name: str) -> None:
    limits = RANGES[name](np.zeros(9, np.float32), 0.0, 0.0)
    assert (limits.low, limits.high) == (0, 0)
