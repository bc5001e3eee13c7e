"""Layers go back to float32 only if the answers need it, and those that gain most go first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.network.quantization.networks import (
    answers_of,
    made_up_squares,
    random_network,
)
from training.network.export import write_onnx
from training.network.model import Agreement
from training.network.quantization.calibration import Calibration, calibrate
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.layer_choice import (
    Comparison,
    agrees_clearly,
    choose_layers,
    cost,
    sensitivity,
)
from training.network.quantization.rounding import FinishedLayer, FloatLayer

GOOD = Agreement(top1=1, nearest10=1, cosine=0.9999, num_images=100, num_indexed=100)


def in_float32(layers: list[FinishedLayer]) -> set[str]:
    return {one.layer.name for one in layers if isinstance(one, FloatLayer)}


def compared(file: Path) -> Comparison:
    squares = made_up_squares(40, seed=2)
    indexed = answers_of(file, made_up_squares(40, seed=3)).features
    return Comparison(squares, answers_of(file, squares), indexed)


@pytest.fixture(scope="module")
def uneven_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in which one map of conv4 has values 300 times as large as the others.

    Its consumers in conv5 divide by 300 again, so the network is a usual one, but the other maps
    have hardly any steps.
    """
    network = random_network()
    with torch.no_grad():
        for kind in ("weight", "bias"):
            network.get_parameter(f"convolutions.conv4.{kind}")[5] *= 300
        network.get_parameter("convolutions.conv5.weight")[:, 5] /= 300
    file = tmp_path_factory.mktemp("uneven") / "model.onnx"
    write_onnx(network, file, "an id")
    return file


def test_if_the_answers_agree_all_layers_are_int8(
    network: FloatNetwork, network_file: Path, calibration: Calibration
) -> None:
    comparison = compared(network_file)
    generous = replace(comparison, indexed=comparison.indexed[:10])  # all 10 are always found
    assert in_float32(choose_layers(network, calibration, generous)) == set()


def test_the_layers_that_spoil_the_answers_stay_in_float32(uneven_file: Path) -> None:
    network = FloatNetwork.read(uneven_file)
    calibration = calibrate(network, made_up_squares(24))
    comparison = compared(uneven_file)
    chosen = choose_layers(network, calibration, comparison)
    # conv4's output and conv5's input are the same uneven numbers.
    assert {"conv4", "conv5"} <= in_float32(chosen)
    assert "fc7" not in in_float32(chosen)


def test_if_the_answers_never_agree_all_layers_are_int8(
    network: FloatNetwork,
    network_file: Path,
    calibration: Calibration,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = replace(GOOD, top1=0.5)
    monkeypatch.setattr(Comparison, "agreement", lambda *_: bad)
    assert in_float32(choose_layers(network, calibration, compared(network_file))) == set()
    assert "looking for layers that must stay in float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("needed", "chosen", "last_tries"),
    [
        ({"conv1", "fc7"}, {"conv1", "fc7"}, [{"fc7"}]),
        # conv1 is tried first, and becomes int8 again.
        ({"fc7"}, {"fc7"}, [{"fc7"}]),
        ({"conv1"}, {"conv1"}, []),
    ],
)
def test_layers_are_tried_in_the_order_of_their_disagreement_per_cost(
    needed: set[str],
    chosen: set[str],
    last_tries: list[set[str]],
    network: FloatNetwork,
    network_file: Path,
    calibration: Calibration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fc7 disagrees more than conv1, but it would also cost more in float32."""
    everywhere = {layer.name for layer in network.layers}
    tried: list[set[str]] = []

    def made_up(layers: list[FinishedLayer]) -> Agreement:
        names = in_float32(layers)
        tried.append(names)
        parts = {"fc7": 0.4, "conv1": 0.3}
        disagreement = sum(part for name, part in parts.items() if name not in names)
        nearest10 = 1.0 if needed <= names else 0.9
        return replace(GOOD, nearest10=nearest10, cosine=1 - 0.001 * disagreement)

    module = "training.network.quantization.layer_choice"
    monkeypatch.setattr(f"{module}.write_network", lambda network, layers: layers)
    monkeypatch.setattr(Comparison, "agreement", lambda self, layers: made_up(layers))
    assert in_float32(choose_layers(network, calibration, compared(network_file))) == chosen
    alone = [everywhere - {layer.name} for layer in network.layers]
    ranked = [{"conv1"}, {"conv1", "fc7"}][: 1 if needed == {"conv1"} else 2]
    assert tried == [set(), *alone, *ranked, *last_tries]


@pytest.mark.parametrize(
    ("top1", "nearest10", "expected"),
    [(1, 1, True), (0.992, 0.987, True), (0.99, 1, False), (1, 0.985, False), (0.5, 0.5, False)],
)
def test_the_answers_for_the_choice_must_agree_a_little_more_than_in_the_end(
    top1: float, nearest10: float, expected: bool
) -> None:
    assert agrees_clearly(replace(GOOD, top1=top1, nearest10=nearest10)) is expected


def test_the_sensitivity_of_a_layer_is_its_share_of_the_disagreement() -> None:
    every = replace(GOOD, cosine=0.999)
    assert sensitivity(replace(every, cosine=0.9995), every) == pytest.approx(0.5)
    assert sensitivity(replace(GOOD, cosine=1, top1=0.5), every) == 0
    worse = replace(every, top1=0.9)
    assert sensitivity(replace(GOOD, cosine=1, top1=0.95), worse) == pytest.approx(0.5)
    assert sensitivity(worse, worse) == pytest.approx(2)


def test_the_cost_counts_products_and_weights(
    network: FloatNetwork, calibration: Calibration
) -> None:
    fc7 = network.layers[6]
    assert cost(fc7, calibration) == pytest.approx(4 * 4096**2)
    conv2 = network.layers[1]
    num_positions = calibration.sizes[conv2.result] / len(conv2.weight)
    assert num_positions == 7**2
    expected = (num_positions + 3) * np.prod(conv2.weight.shape)
    assert cost(conv2, calibration) == pytest.approx(expected)
