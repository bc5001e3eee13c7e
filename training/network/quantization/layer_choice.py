"""Choose the layers that stay in float32: as few as possible, but so that the answers agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from training.data.images import Pixels
from training.network.model import MIN_NEAREST10, MIN_TOP1, Agreement
from training.network.onnx_session import Floats, open_session
from training.network.quantization.agreement import Answers, Targets, compare
from training.network.quantization.calibration import Calibration
from training.network.quantization.float_network import FloatNetwork, Layer
from training.network.quantization.int8_network import (
    round_layers,
    round_one_layer,
    write_network,
)
from training.network.quantization.rounding import FinishedLayer
from training.progress import console

MAX_SHARE_USED = 0.9
"""Maximum share of the allowed disagreement on the images for the choice. On other images, the
answers can agree less often."""
PRODUCTS_PER_WEIGHT = 3
"""Reading a weight from memory takes about as long as this number of products, in small batches."""


@dataclass(frozen=True)
class Comparison:
    """Images, and the answers of the network in float32 for them."""

    squares: Pixels
    """(N, S, S, 3) uint8"""
    float32: Answers
    indexed: Floats
    """The features of other images in float32, (n, 4096)."""
    targets: Targets | None = None

    def agreement(self, network: onnx.ModelProto | bytes) -> Agreement:
        """How well the answers of another network agree."""
        content = network if isinstance(network, bytes) else network.SerializeToString()
        int8 = Answers.of(open_session(content), self.squares)
        return compare(self.float32, int8, self.indexed, self.targets)


def choose_layers(
    network: FloatNetwork, calibration: Calibration, comparison: Comparison
) -> list[FinishedLayer]:
    """Round as many layers to bytes as the agreement allows.

    If the answers do not agree often enough with all layers in int8, the disagreement is measured
    with each layer alone in int8. Then the layers that disagree most for the time that they save
    go back to float32, until the answers agree. At the end, each of them becomes int8 again if the
    answers still agree. If the answers never agree, all layers are int8.
    """

    def measured(layers: Sequence[FinishedLayer]) -> Agreement:
        return comparison.agreement(write_network(network, layers))

    def attempt(float32: Sequence[str]) -> list[FinishedLayer] | None:
        """The layers, or None if their answers do not agree."""
        layers = round_layers(network, calibration, float32=float32)
        return layers if agrees_clearly(measured(layers)) else None

    every = round_layers(network, calibration)
    agreement = measured(every)
    if agrees_clearly(agreement):
        return every
    console.print("Some answers in int8 differ: looking for layers that must stay in float32")
    costs = {layer.name: cost(layer, calibration) for layer in network.layers}
    worth = {
        name: sensitivity(measured(round_one_layer(network, name, calibration)), agreement)
        / costs[name]
        for name in costs
    }
    ranked = sorted(worth, key=worth.__getitem__, reverse=True)
    for num_float32 in range(1, len(ranked)):
        float32 = ranked[:num_float32]
        if layers := attempt(float32):
            break
    else:
        return every
    for name in sorted(float32[:-1], key=costs.__getitem__, reverse=True):
        fewer = [other for other in float32 if other != name]
        if found := attempt(fewer):
            float32, layers = fewer, found
    return layers


def agrees_clearly(agreement: Agreement) -> bool:
    """Whether the agreement is so good that it is probably sufficient on other images too."""
    return max(_used_shares(agreement)) <= MAX_SHARE_USED


def sensitivity(alone: Agreement, every: Agreement) -> float:
    """How much a layer alone disagrees, as a share of the disagreement of all layers together.

    The cosine of the features shows smaller differences than the share of the 10 nearest. The
    classes count only if too few of them agree.
    """
    of_features = (1 - alone.cosine) / max(1 - every.cosine, 1e-9)
    of_all, of_alone = _used_shares(every)[0], _used_shares(alone)[0]
    return of_features + (of_alone / of_all if of_all > MAX_SHARE_USED else 0.0)


def cost(layer: Layer, calibration: Calibration) -> float:
    """A rough estimate of the time that a layer in float32 costs, in products of two numbers.

    It decides only the order in which the layers are tried.
    """
    num_weights = layer.weight.size
    num_products = calibration.sizes[layer.result] * num_weights / len(layer.weight)
    return num_products + PRODUCTS_PER_WEIGHT * num_weights


def _used_shares(agreement: Agreement) -> tuple[float, float]:
    """The shares of the allowed disagreement that are used up: of top-1, and of the 10 nearest."""
    of_top1 = (1 - agreement.top1) / (1 - MIN_TOP1)
    return of_top1, (1 - agreement.nearest10) / (1 - MIN_NEAREST10)
