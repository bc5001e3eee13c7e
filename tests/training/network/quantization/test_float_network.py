"""The layers of a model.onnx are found, and its preprocessing becomes faster but stays the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.training.network.quantization.networks import (
    answers_of,
    made_up_squares,
    random_network,
    relative_error,
)
from training.network.model import ModelError
from training.network.quantization.float_network import FloatNetwork

ALL_LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def test_the_layers_are_those_of_the_network_in_order(network: FloatNetwork) -> None:
    assert [layer.name for layer in network.layers] == ALL_LAYERS
    assert [layer.is_convolution for layer in network.layers] == [True] * 5 + [False] * 3
    expected = random_network()
    for layer in network.layers:
        part = "convolutions" if layer.is_convolution else "hidden"
        path = f"{'output' if layer.name == 'fc8' else part}.{layer.name}"
        weight = expected.get_parameter(f"{path}.weight").detach().numpy()
        if layer.name == "conv1":
            weight = weight / np.array([60, 65, 70]).reshape(1, 3, 1, 1)
        np.testing.assert_allclose(layer.weight, weight, rtol=1e-5)
        np.testing.assert_allclose(
            layer.bias, expected.get_parameter(f"{path}.bias").detach(), rtol=1e-6
        )


def test_each_layer_gets_the_activations_of_the_layer_before(network: FloatNetwork) -> None:
    for before, after in zip(network.layers, network.layers[1:], strict=False):
        assert after.source == before.output
        assert before.output != before.result or before.name == "fc8"
    is_pooled = {layer.name: network.is_pooled(layer.input) for layer in network.layers}
    assert [name for name, pooled in is_pooled.items() if pooled] == ["conv2", "conv3", "fc6"]
    assert network.layers[6].output == "features"
    assert network.layers[7].output == "logits"


def test_without_the_division_the_answers_are_the_same(
    network: FloatNetwork, network_file: Path
) -> None:
    squares = made_up_squares(3)
    expected = answers_of(network_file, squares)
    proto = network.with_outputs(["logits", "features"])
    assert "Div" not in {node.op_type for node in proto.graph.node}
    found = answers_of(proto.SerializeToString(), squares)
    assert relative_error(found.features, expected.features) < 1e-5
    assert relative_error(found.logits, expected.logits) < 1e-5


def test_a_copy_has_the_metadata_the_operators_and_only_the_constants_in_use(
    network: FloatNetwork, network_file: Path
) -> None:
    original, copied = onnx.load(network_file), network.with_outputs(["logits", "features"])
    onnx.checker.check_model(copied)
    assert {entry.key: entry.value for entry in copied.metadata_props} == {"model_id": "an id"}
    assert list(copied.opset_import) == list(original.opset_import)
    assert copied.graph.output == original.graph.output
    first = network.layers[0].result
    part = network.model(network.nodes[:4], network.constants, [first])
    assert len(part.graph.initializer) < len(copied.graph.initializer)


def test_a_network_with_batch_norms_or_without_known_layers_is_refused() -> None:
    values = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    node = helper.make_node("Relu", ["images"], ["features"])
    graph = helper.make_graph([node], "other", [values], [values])
    with pytest.raises(ModelError, match=r"^a file has another structure .* lookalike export"):
        FloatNetwork(helper.make_model(graph), "a file")
