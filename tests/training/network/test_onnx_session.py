"""Sessions give the same answers in batches and at once, and bytes are multiplied exactly."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.network.model import ONNX_FILE
from training.network.onnx_session import BATCH_SIZE, answers, open_session, outputs_of_batches


def product_of_bytes(num_inputs: int, num_outputs: int) -> bytes:
    """A fully connected layer with activations of 255 steps and weights of +127 or -127 steps."""
    signs = np.where(np.arange(num_outputs) % 2, 1, -1)[:, None]
    constants = {
        "step": np.float32(1),
        "zero": np.uint8(0),
        "weight": (127 * signs * np.ones((num_outputs, num_inputs))).astype(np.int8),
        "steps": np.ones(num_outputs, np.float32),
        "zeros": np.zeros(num_outputs, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["numbers"]),
        helper.make_node("DequantizeLinear", ["weight", "steps", "zeros"], ["weights"], axis=0),
        helper.make_node("Gemm", ["numbers", "weights"], ["sums"], transB=1),
    ]
    shape: list[str | int | None] = ["batch", num_inputs]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch", num_outputs])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("count", [1, 5])
def test_sums_of_products_of_bytes_are_never_cut_off(count: int) -> None:
    """On an x86 processor without VNNI, ONNX Runtime's fast kernels cut off at 16 bits."""
    session = open_session(product_of_bytes(64, 32))
    (sums,) = session.run(["sums"], {"images": np.full((count, 64), 255, np.float32)})
    expected = 64 * 255 * 127 * np.where(np.arange(32) % 2, 1, -1)
    np.testing.assert_array_equal(sums, np.broadcast_to(expected, (count, 32)))


def test_many_squares_get_the_answers_of_each_square_alone(tiny_model: Path) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE + 3, 67, 67, 3), np.uint8)
    session = open_session(tiny_model / ONNX_FILE, num_threads=1)
    logits, features = answers(session, squares)
    assert logits.shape == (BATCH_SIZE + 3, 3)
    assert features.shape == (BATCH_SIZE + 3, 4096)
    for position in (0, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 2):
        alone = answers(session, squares[position : position + 1])
        np.testing.assert_allclose(logits[position], alone[0][0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(features[position], alone[1][0], rtol=1e-3, atol=1e-3)


def test_no_squares_give_no_answers(tiny_model: Path) -> None:
    logits, features = answers(
        open_session(tiny_model / ONNX_FILE), np.empty((0, 67, 67, 3), np.uint8)
    )
    assert (logits.shape, features.shape) == ((0, 3), (0, 4096))


def test_batches_come_in_order_and_the_last_one_is_smaller(tiny_model: Path) -> None:
    squares = np.zeros((2 * BATCH_SIZE + 1, 67, 67, 3), np.uint8)
    session = open_session((tiny_model / ONNX_FILE).read_bytes(), num_threads=1)
    sizes = [len(batch[0]) for batch in outputs_of_batches(session, ["logits"], squares)]
    assert sizes == [BATCH_SIZE, BATCH_SIZE, 1]
