"""The network of a model.onnx, and its layers that can be quantized.

The program's own exporter wrote the file. It has folded batch normalisation into the convolutions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.network.model import ModelError
from training.network.onnx_session import Floats

POOL = "MaxPool"
PASSING = (POOL, "Reshape", "Flatten")
"""Operators that do not change values. They move them, or leave some of them out."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a fully connected layer, with the names of its tensors."""

    name: str
    """As in the paper: conv1, fc6."""
    is_convolution: bool
    input: str
    source: str
    """The tensor from which the values of `input` come. Between the two are only PASSING operators.
    """
    result: str
    """The output before the activation."""
    output: str
    """The output after the ReLU. If the activation is another one, it is `result`."""
    weight: Floats
    """(O, ...)"""
    bias: Floats
    """(O,)"""


class FloatNetwork:
    """The graph of a model.onnx. The input is `images`, the outputs are `logits` and `features`."""

    def __init__(self, proto: onnx.ModelProto, name: str):
        """Find the layers. In an error message, `name` is the name of the file.

        Raises ModelError if the graph is not one that this program writes.
        """
        self.proto = proto
        self.nodes: list[onnx.NodeProto] = list(proto.graph.node)
        self.constants = {
            constant.name: numpy_helper.to_array(constant) for constant in proto.graph.initializer
        }
        self._subtract_only()
        self._producers = {output: node for node in self.nodes for output in node.output}
        self.layers = tuple(self._layers())
        is_known = self.layers and all(node.op_type != "BatchNormalization" for node in self.nodes)
        if not is_known:
            raise ModelError(
                f"{name} has another structure than this program writes; "
                "write it again with: lookalike export MODEL"
            )

    @classmethod
    def read(cls, file: Path) -> "FloatNetwork":
        """Read a model.onnx; raises ModelError."""
        return cls(onnx.load(file), str(file))

    def source(self, tensor: str) -> str:
        """The tensor from which PASSING operators take the values of `tensor`."""
        for node in self._passed(tensor):
            tensor = node.input[0]
        return tensor

    def is_pooled(self, tensor: str) -> bool:
        """Whether there is a max pooling between `tensor` and its source."""
        return any(node.op_type == POOL for node in self._passed(tensor))

    def _passed(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """The PASSING operators between `tensor` and its source, the last one first."""
        while tensor in self._producers and self._producers[tensor].op_type in PASSING:
            yield self._producers[tensor]
            tensor = self._producers[tensor].input[0]

    def with_outputs(self, names: Sequence[str]) -> onnx.ModelProto:
        """The network in float32 with these tensors as its outputs."""
        return self.model(self.nodes, self.constants, names)

    def model(
        self,
        nodes: Sequence[onnx.NodeProto],
        constants: dict[str, Any],
        outputs: Sequence[str] = ("logits", "features"),
    ) -> onnx.ModelProto:
        """A file with other nodes. It has this network's input, metadata and operator versions.

        Constants that no node uses are left out.
        """
        used = {name for node in nodes for name in node.input}
        known = {output.name: output for output in self.proto.graph.output}
        unknown = {
            name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in outputs
            if name not in known
        }
        graph = helper.make_graph(
            nodes,
            self.proto.graph.name,
            list(self.proto.graph.input),
            [(known | unknown)[name] for name in outputs],
            [
                numpy_helper.from_array(np.asarray(value), name)
                for name, value in constants.items()
                if name in used
            ],
        )
        proto = helper.make_model(
            graph, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version
        )
        metadata = {entry.key: entry.value for entry in self.proto.metadata_props}
        helper.set_model_props(proto, metadata)
        return proto

    def _subtract_only(self) -> None:
        """Move the division by the channels' deviations into the weights of conv1.

        The mean gets the shape of a whole square. Both make the preprocessing faster: ONNX Runtime
        is slow if one of the two numbers has only a few channels. The network stays the same.
        """
        for before, divide, transpose, conv in zip(
            self.nodes, self.nodes[1:], self.nodes[2:], self.nodes[3:], strict=False
        ):
            kinds = [node.op_type for node in (before, divide, transpose, conv)]
            if kinds != ["Sub", "Div", "Transpose", "Conv"]:
                continue
            mean, deviation = self.constants.get(before.input[1]), divide.input[1]
            if mean is None or deviation not in self.constants:
                return
            side = self.proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value
            self.constants[before.input[1]] = np.broadcast_to(mean, (side, side, 3))
            by_channel = self.constants[deviation].reshape(1, 3, 1, 1)
            self.constants[conv.input[1]] = self.constants[conv.input[1]] / by_channel
            transpose.input[0] = before.output[0]
            self.nodes.remove(divide)
            return

    def _layers(self) -> Iterator[Layer]:
        for node in self.nodes:
            weight = node.input[1] if len(node.input) > 1 else ""
            if node.op_type not in ("Conv", "Gemm") or not weight.endswith(".weight"):
                continue  # the sums of the response normalisation are a Conv too
            users = [user for user in self.nodes if node.output[0] in user.input]
            is_relu = len(users) == 1 and users[0].op_type == "Relu"
            values = self.constants[weight]
            bias = self.constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(values))
            yield Layer(
                name=weight.split(".")[-2],
                is_convolution=node.op_type == "Conv",
                input=node.input[0],
                source=self.source(node.input[0]),
                result=node.output[0],
                output=users[0].output[0] if is_relu else node.output[0],
                weight=values,
                bias=bias.astype(np.float32),
            )
