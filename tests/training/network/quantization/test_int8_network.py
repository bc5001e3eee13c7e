"""Networks of every structure answer in int8 as in float32, with ONNX Runtime's fast kernels."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.training.network.quantization.networks import (
    answers_of,
    made_up_squares,
    relative_error,
    write_random_network,
)
from training.network.onnx_session import open_session
from training.network.quantization.calibration import Calibration, calibrate
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.int8_network import (
    round_layers,
    round_one_layer,
    write_network,
)
from training.network.quantization.rounding import FloatLayer

PAPER: dict[str, Any] = {"layout": "paper", "normalization": "response"}
TORCHVISION: dict[str, Any] = {"layout": "torchvision", "normalization": "none"}
STRUCTURES = {
    "the paper": {**PAPER, "mean": "image"},
    "torchvision": TORCHVISION,
    "batch norm": {"normalization": "batch"},
    "Caffe": {**PAPER, "response_k": 1.0, "response_crosses_towers": True},
    "one tower": {**PAPER, "num_towers": 1},
    "tanh": {**PAPER, "activation": "tanh"},
    "tanh and batch norm": {"normalization": "batch", "activation": "tanh"},
    "six convolutions": {**PAPER, "has_sixth_convolution": True},
    "half of the kernels": {**PAPER, "kernels": "half"},
    "without conv3": {**PAPER, "without_convolution": 3},
    "plain pooling": {**PAPER, "pooling": "plain"},
    "torchvision with batch norm": {**TORCHVISION, "normalization": "batch"},
}
QUICK_ONES = ("the paper", "batch norm")
MAX_ERROR = 0.04


def kernels(content: bytes, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs for a network, and how often each occurs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # the file is for this machine only, and a warning says so
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(folder / "optimized.onnx")
    return Counter(node.op_type for node in optimized.graph.node)


@pytest.mark.parametrize(
    "structure",
    [
        pytest.param(name, marks=[] if name in QUICK_ONES else pytest.mark.slow)
        for name in STRUCTURES
    ],
)
def test_every_structure_answers_in_int8_as_in_float32(structure: str, tmp_path: Path) -> None:
    file = write_random_network(tmp_path / "model.onnx", **STRUCTURES[structure])
    network = FloatNetwork.read(file)
    layers = round_layers(network, calibrate(network, made_up_squares(24)))
    proto = write_network(network, layers)
    onnx.checker.check_model(proto)
    content = proto.SerializeToString()
    assert len(content) < 0.3 * file.stat().st_size
    counts = kernels(content, tmp_path)
    num_convolutions = sum(layer.is_convolution for layer in network.layers)
    assert counts["QLinearConv"] == num_convolutions
    assert counts["QGemm"] == len(network.layers) - num_convolutions
    num_response_sums = 2 if "response" in STRUCTURES[structure].values() else 0
    assert counts["Conv"] + counts["FusedConv"] == num_response_sums
    for count in (1, 5):
        squares = made_up_squares(count, seed=1)
        expected, found = answers_of(file, squares), answers_of(content, squares)
        assert found.logits.shape == expected.logits.shape
        assert relative_error(found.features, expected.features) < MAX_ERROR
        assert relative_error(found.logits, expected.logits) < MAX_ERROR


def test_the_outputs_are_not_rounded_to_bytes(
    network: FloatNetwork, calibration: Calibration
) -> None:
    content = write_network(network, round_layers(network, calibration)).SerializeToString()
    answers = answers_of(content, made_up_squares(8))
    assert len(np.unique(answers.features)) > 1000


def test_rounding_does_not_shift_the_means_of_a_layer(
    network: FloatNetwork, calibration: Calibration
) -> None:
    layers = round_layers(network, calibration)
    squares = calibration.mean_squares
    for layer in (network.layers[3], network.layers[7]):
        proto = write_network(network, layers, until=layer)
        assert [output.name for output in proto.graph.output] == [layer.result]
        session = open_session(proto.SerializeToString())
        (results,) = session.run([layer.result], {"images": squares})
        means = results.mean((0, 2, 3) if results.ndim == 4 else 0)
        np.testing.assert_allclose(means, calibration.means[layer.result], atol=2e-3)


@pytest.mark.parametrize("name", ["conv1", "conv3", "fc6", "fc8"])
def test_a_layer_in_float32_stays_in_float32(
    name: str, network: FloatNetwork, calibration: Calibration, tmp_path: Path
) -> None:
    """Between two layers of bytes, ONNX Runtime would round its weights too."""
    layers = round_layers(network, calibration, float32=[name])
    assert [one.layer.name for one in layers if isinstance(one, FloatLayer)] == [name]
    counts = kernels(write_network(network, layers).SerializeToString(), tmp_path)
    assert counts["QLinearConv"] == 5 - name.startswith("conv")
    assert counts["QGemm"] == 3 - name.startswith("fc")


def test_one_layer_alone_is_rounded(
    network: FloatNetwork, network_file: Path, calibration: Calibration, tmp_path: Path
) -> None:
    content = write_network(
        network, round_one_layer(network, "conv4", calibration)
    ).SerializeToString()
    counts = kernels(content, tmp_path)
    assert (counts["QLinearConv"], counts["QGemm"]) == (1, 0)
    squares = made_up_squares(3)
    found, expected = answers_of(content, squares), answers_of(network_file, squares)
    assert 0 < relative_error(found.features, expected.features) < MAX_ERROR


def test_with_all_layers_in_float32_the_network_is_exact(
    network: FloatNetwork, network_file: Path
) -> None:
    layers = [FloatLayer(layer, layer.bias) for layer in network.layers]
    squares = made_up_squares(3)
    found = answers_of(write_network(network, layers).SerializeToString(), squares)
    assert relative_error(found.features, answers_of(network_file, squares).features) < 1e-5


def test_the_metadata_stays(network: FloatNetwork, calibration: Calibration) -> None:
    proto = write_network(network, round_layers(network, calibration))
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"model_id": "an id"}
    assert {output.name for output in proto.graph.output} == {"logits", "features"}
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
