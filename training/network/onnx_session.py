"""Run an ONNX file of a model in ONNX Runtime on the CPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from training.data.images import Pixels
from training.network.model import NUM_FEATURES
from training.parallel import num_cores

Floats = npt.NDArray[np.float32]
BATCH_SIZE = 16
"""Number of squares per batch, for many squares. Larger batches are hardly faster on a CPU."""


def open_session(
    network: Path | bytes, *, num_threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Load a network from an ONNX file, or from the bytes of one.

    `num_threads` is the number of threads that the network uses; None means all cores.

    ONNX Runtime multiplies the unsigned bytes of an activation by the signed bytes of the weights.
    On an x86 processor without VNNI, its fast kernels add two such products in 16 bits, and sums
    that do not fit are cut off. With the option `x64quantprecision`, it uses slower kernels there
    that never cut off, so that int8 gives the same answers on all processors. Weights of 7 bits
    would also avoid the cut, but they round twice as coarsely. Processors with VNNI or ARM's dot
    product are not affected: they add in 32 bits.
    """
    options = onnxruntime.SessionOptions()
    # Without a number, ONNX Runtime would use all cores of the machine, whatever the quota.
    options.intra_op_num_threads = num_threads or num_cores()
    # Threads that spin while they wait would keep cores busy that are needed for decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")
    source = network if isinstance(network, bytes) else str(network)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def outputs_of_batches(
    session: onnxruntime.InferenceSession, names: Sequence[str], squares: Pixels
) -> Iterator[list[Floats]]:
    """The outputs `names` of each batch of squares (N, S, S, 3), in order."""
    for start in range(0, len(squares), BATCH_SIZE):
        batch = np.ascontiguousarray(squares[start : start + BATCH_SIZE])
        yield session.run(list(names), {"images": batch})


def answers(session: onnxruntime.InferenceSession, squares: Pixels) -> tuple[Floats, Floats]:
    """The logits (N, classes) and the features (N, 4096) of squares (N, S, S, 3)."""
    if not len(squares):
        num_classes = next(out.shape[1] for out in session.get_outputs() if out.name == "logits")
        return np.empty((0, num_classes), np.float32), np.empty((0, NUM_FEATURES), np.float32)
    batches = list(outputs_of_batches(session, ("logits", "features"), squares))
    logits, features = zip(*batches, strict=True)
    return np.concatenate(logits), np.concatenate(features)
