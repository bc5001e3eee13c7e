"""Compare the answers of the network in int8 with those in float32."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from training.data.images import Pixels
from training.network.model import Agreement
from training.network.onnx_session import Floats, answers

NUM_NEAREST = 10
Targets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """The answers of a network for some images."""

    logits: Floats
    """(N, classes)"""
    features: Floats
    """(N, 4096)"""

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, squares: Pixels) -> "Answers":
        """Run a network on squares (N, S, S, 3) uint8."""
        return cls(*answers(session, squares))


def compare(
    float32: Answers, int8: Answers, indexed: Floats, targets: Targets | None = None
) -> Agreement:
    """How well the answers for the same images agree.

    `indexed` are the features (n, 4096) in float32 of other images. They take the place of an
    index. `targets` (N,) are the class indices of the images, if the network knows their labels.
    """
    best, best_int8 = float32.logits.argmax(1), int8.logits.argmax(1)
    return Agreement(
        top1=float((best == best_int8).mean()),
        nearest10=share_of_nearest(float32.features, int8.features, indexed),
        cosine=float(_cosines(float32.features, int8.features).mean()),
        num_images=len(best),
        num_indexed=len(indexed),
        accuracy_float32=None if targets is None else float((best == targets).mean()),
        accuracy_int8=None if targets is None else float((best_int8 == targets).mean()),
    )


def share_of_nearest(features: Floats, approximate: Floats, indexed: Floats) -> float:
    """The share of the nearest rows of `indexed` to a feature that its approximation finds too.

    Features and approximations are (N, 4096). If several rows are equally far away, each of them
    counts. If there are no rows, the share is 1.
    """
    k = min(NUM_NEAREST, len(indexed))
    if not k:
        return 1.0
    exact = _squared_distances(features, indexed)  # (N, n)
    found = np.argsort(_squared_distances(approximate, indexed), axis=1, kind="stable")[:, :k]
    farthest = np.sort(exact, axis=1)[:, k - 1 : k]
    limit = farthest + 1e-9 * np.square(features.astype(np.float64)).sum(1, keepdims=True)
    return float((np.take_along_axis(exact, found, axis=1) <= limit).mean())


def _squared_distances(queries: Floats, rows: Floats) -> npt.NDArray[np.float64]:
    """Squared Euclidean distances (N, n). float64 keeps them exact for near-identical images."""
    a, b = queries.astype(np.float64), rows.astype(np.float64)
    return np.asarray(np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)[None])


def _cosines(a: Floats, b: Floats) -> Floats:
    """The cosine of each pair of rows, (N,). Two rows of zeros have the cosine 1."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    are_both_zero = ~a.any(1) & ~b.any(1)
    products = (a * b).sum(1)
    return np.asarray(np.where(are_both_zero, 1.0, products / np.maximum(lengths, 1e-30)))
