"""Write a network in which some layers compute with bytes.

Around each of these layers, QuantizeLinear turns numbers into bytes, and DequantizeLinear turns
bytes into numbers (QDQ). ONNX Runtime joins a layer and its neighbours to one kernel for bytes:

- The weights are signed bytes, with one step per output channel. The activations are unsigned
  bytes, with one step per tensor. Biases have 32 bits.
- The output of a convolution is bytes too. A fully connected layer adds in 32 bits and returns
  float32. So the features and the logits are not rounded to bytes, and images that are close to
  each other stay distinct.
- The mean of the pixels is subtracted in float32, and the response normalisation computes in
  float32.
"""

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from training.network.onnx_session import Floats, open_session, outputs_of_batches
from training.network.quantization.calibration import Calibration, Range, sums_by_channel
from training.network.quantization.float_network import FloatNetwork, Layer
from training.network.quantization.rounding import FinishedLayer, FloatLayer, Int8Layer

FACTOR = np.float32(2)
"""A factor for activations, by which the weights are divided. The results stay exactly the same,
because it is a power of two."""


def round_layers(
    network: FloatNetwork, calibration: Calibration, *, float32: Container[str] = ()
) -> list[FinishedLayer]:
    """Round the layers to bytes, and correct their biases. The layers `float32` are not rounded.

    Rounding shifts the mean result of a channel, and such shifts add up from layer to layer. The
    bias takes the shift back. It is measured layer by layer, after the earlier layers were
    corrected (Nagel et al. 2019, section 4.2). A layer in float32 takes back the shifts of earlier
    layers too.
    """
    finished: list[FinishedLayer] = []
    for layer in network.layers:
        is_float32 = layer.name in float32
        candidate: FinishedLayer = (
            FloatLayer(layer, layer.bias) if is_float32 else Int8Layer.of(layer, calibration)
        )
        finished.append(_corrected(network, finished, candidate, calibration))
    return finished


def round_one_layer(
    network: FloatNetwork, name: str, calibration: Calibration
) -> list[FinishedLayer]:
    """Round only one layer to bytes."""
    layers: list[FinishedLayer] = [FloatLayer(layer, layer.bias) for layer in network.layers]
    position = [layer.name for layer in network.layers].index(name)
    rounded = Int8Layer.of(network.layers[position], calibration)
    layers[position] = _corrected(network, layers[:position], rounded, calibration)
    return layers


def _corrected(
    network: FloatNetwork,
    earlier: Sequence[FinishedLayer],
    candidate: FinishedLayer,
    calibration: Calibration,
) -> FinishedLayer:
    """A layer with the bias that gives it the same means as in float32."""
    if all(isinstance(one, FloatLayer) for one in [*earlier, candidate]):
        return candidate  # nothing is rounded yet
    layer, squares = candidate.layer, calibration.mean_squares
    proto = write_network(network, [*earlier, candidate], until=layer)
    session = open_session(proto.SerializeToString())
    batches = outputs_of_batches(session, (layer.result,), squares)
    sums = sum((sums_by_channel(results) for (results,) in batches), np.float32(0))
    shift = calibration.means[layer.result] - sums / len(squares)
    return replace(candidate, bias=candidate.bias + shift.astype(np.float32))


def write_network(
    network: FloatNetwork, layers: Sequence[FinishedLayer], *, until: Layer | None = None
) -> onnx.ModelProto:
    """The network in which `layers` compute with bytes.

    The outputs are the logits and the features. If `until` is given, the output is the result of
    this layer, and later layers are left out.
    """
    writer = _Writer(network, layers)
    for node in network.nodes:
        writer.add(node)
        if until and until.result in node.output:
            # The end of the graph shows the results in float32, before the activation.
            return network.model(writer.nodes, writer.constants, [until.result])
    return network.model(writer.nodes, writer.constants)


class _Writer:
    """Copies the nodes of a network in order, with conversions around layers of bytes."""

    def __init__(self, network: FloatNetwork, layers: Sequence[FinishedLayer]):
        self._network = network
        self._by_result = {rounded.layer.result: rounded for rounded in layers}
        self._outputs = {
            rounded.layer.output: rounded.output
            for rounded in layers
            if isinstance(rounded, Int8Layer) and rounded.output
        }
        """The ranges of the tensors that are bytes after a convolution."""
        self._renamed: dict[str, str] = {}
        """The tensors to read instead of others."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = dict(network.constants)

    def add(self, node: onnx.NodeProto) -> None:
        """Copy a node, and convert its output if that is bytes."""
        output = node.output[0]
        inputs = [self._renamed.get(name, name) for name in node.input]
        match self._by_result.get(output):
            case Int8Layer() as layer:
                self._copy(node, self._layer_inputs(layer))
            case FloatLayer() as layer:
                self._copy(node, self._float_inputs(layer, inputs[0]))
            case None:
                self._copy(node, inputs)
        source = self._network.source(output)
        if is_bytes := source in self._outputs:
            # After a pooling, the bytes have the same range as before it. ONNX Runtime then moves
            # bytes, and no numbers.
            self._renamed[output] = self._convert(output, self._outputs[source])
        num_users = sum(output in other.input for other in self._network.nodes)
        if is_bytes and num_users > 1:
            # Otherwise ONNX Runtime would convert the bytes once for each user.
            self._renamed[output] = self._apply("Relu", self._renamed[output], "together")

    def _copy(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(inputs)
        self.nodes.append(copied)

    def _float_inputs(self, layer: FloatLayer, given: str) -> list[str]:
        """The names of the input, the weights and the bias of a layer in float32."""
        values = layer.layer.weight
        if layer.layer.source in self._outputs:
            # Between bytes and bytes, ONNX Runtime would round the weights of its own accord. It
            # does not do this after a product.
            given, values = self._doubled(given), values / FACTOR
        weight, bias = f"{layer.layer.name}.weight", f"{layer.layer.name}.bias"
        self.constants |= {weight: values, bias: layer.bias}
        return [given, weight, bias]

    def _doubled(self, tensor: str) -> str:
        self.constants["factor"] = FACTOR
        return self._apply("Mul", tensor, "doubled", "factor")

    def _layer_inputs(self, int8: Int8Layer) -> list[str]:
        """Convert the input, the weights and the bias of a layer, and return their names."""
        layer, factor = int8.layer, np.float32(1)
        given = self._renamed.get(layer.input, layer.input)
        if layer.source not in self._outputs:
            if self._network.is_pooled(layer.input):
                # ONNX Runtime would move the conversion before the pooling, and it pools bytes
                # slowly in this order of the axes. It does not do this across a product.
                given, factor = self._doubled(given), FACTOR
            low, high = (float(end * factor) for end in (int8.input.low, int8.input.high))
            given = self._convert(given, Range(low, high))
        bias_steps = int8.input.scale * int8.steps
        bias = np.rint(int8.bias / bias_steps).astype(np.int32)
        return [
            given,
            self._restore(f"{layer.name}.weight", int8.weight, int8.steps / factor),
            self._restore(f"{layer.name}.bias", bias, bias_steps),
        ]

    def _convert(self, tensor: str, limits: Range) -> str:
        """Convert a tensor to bytes and back, and return the name of the result."""
        step, zero = f"{tensor}.step", f"{tensor}.zero"
        self.constants |= {step: limits.scale, zero: limits.zero_point}
        as_bytes = self._apply("QuantizeLinear", tensor, "bytes", step, zero)
        return self._apply("DequantizeLinear", as_bytes, "numbers", step, zero)

    def _restore(self, name: str, values: npt.NDArray[Any], steps: Floats) -> str:
        """Add whole numbers (O, ...) in steps (O,), and return the name of their product."""
        step, zero = f"{name}.step", f"{name}.zero"
        self.constants |= {name: values, step: steps, zero: np.zeros(len(values), values.dtype)}
        numbers = f"{name}.numbers"
        node = helper.make_node("DequantizeLinear", [name, step, zero], [numbers], axis=0)
        self.nodes.append(node)
        return numbers

    def _apply(self, operator: str, tensor: str, ending: str, *others: str) -> str:
        """Add a node, and return the name of its output."""
        result = f"{tensor}.{ending}"
        self.nodes.append(helper.make_node(operator, [tensor, *others], [result]))
        return result
