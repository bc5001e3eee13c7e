"""The figures come from images that neither calibrate nor choose, and name what was compared."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import int8 as module
from benchmarks.int8 import BATCH_SIZES, measure, time_networks
from benchmarks.int8_methods import DEFAULT, EVERY, FULLY_CONNECTED
from tests.training.network.quantization.networks import made_up_squares
from training.data.images import Pixels
from training.network.model import INT8_FILE, ONNX_FILE, ModelError
from training.network.onnx_session import open_session
from training.network.quantization.calibration import calibrate
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.images import Images
from training.network.quantization.int8_network import round_layers
from training.network.quantization.layer_choice import Comparison
from training.network.quantization.rounding import FinishedLayer


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    """The images on which networks are compared. Only three methods are used, to be quick."""
    squares: list[Pixels] = []
    agreement = Comparison.agreement

    def few(
        network: FloatNetwork, images: Images, _: Comparison
    ) -> Iterator[tuple[str, Sequence[FinishedLayer]]]:
        calibration = calibrate(network, images.calibration)
        yield DEFAULT, round_layers(network, calibration, float32=["conv1"])
        yield EVERY, round_layers(network, calibration)
        yield FULLY_CONNECTED, round_layers(network, calibration, float32=["conv1", "conv2"])

    def noted(self: Comparison, network: Any) -> Any:
        squares.append(self.squares)
        return agreement(self, network)

    monkeypatch.setattr(module, "methods", few)
    monkeypatch.setattr(Comparison, "agreement", noted)
    return squares


def test_one_half_compares_the_methods_and_the_other_reports_the_default(
    tiny_model: Path, compared: list[Pixels]
) -> None:
    squares = made_up_squares(40)
    report, targets = squares[28:], np.zeros(12, np.int64)
    images = Images(squares[:8], squares[8:16], squares[16:28], report, targets)
    figures = measure(tiny_model, images, num_rounds=2)
    assert [len(part) for part in compared] == [6, 6, 6, 6]
    for part, start in zip(compared, (0, 1, 0, 0), strict=True):
        np.testing.assert_array_equal(part, report[start::2])
    assert (figures["calibration_images"], figures["choice_images"]) == (8, 8)
    assert (figures["images"], figures["indexed"]) == (6, 20)
    assert figures["float32_layers"] == ["conv1"]
    assert figures["top1_agrees"] > 0.8
    assert 0.99 < figures["cosine"] <= 1
    assert abs(figures["accuracy_float32"] - figures["accuracy_int8"]) < 0.2
    assert figures["is_sufficient"] is False  # so few images say nothing
    assert 0.2 < figures["share_of_the_size"] < 0.35
    assert list(figures["methods"]) == [DEFAULT, EVERY, FULLY_CONNECTED]
    assert figures["methods"][EVERY]["float32_layers"] == []
    assert isinstance(figures["has_int8_instructions"], bool)
    assert set(figures["speed"]["batch_16"]) > {"float32", "int8", "fully_connected"}
    assert not (tiny_model / INT8_FILE).exists()


def test_a_damaged_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=os.link))
    (model / ONNX_FILE).unlink()
    (model / ONNX_FILE).write_bytes(b"damaged")
    empty = made_up_squares(2)
    with pytest.raises(ModelError, match="damaged or belongs to another model"):
        measure(model, Images(empty, empty, empty, empty, None), num_rounds=1)


def test_every_network_is_timed_at_every_batch_size(tiny_model: Path) -> None:
    session = open_session(tiny_model / ONNX_FILE)
    figures = time_networks({"float32": session, "again": session}, made_up_squares(3), 5)
    assert list(figures) == [*(f"batch_{size}" for size in BATCH_SIZES), "rounds"]
    for size in BATCH_SIZES:
        times = figures[f"batch_{size}"]
        assert "float32_times_as_fast" not in times
        assert times["again_times_as_fast"] > 0
        for name in ("float32", "again"):
            assert 0 < times[name]["ms_p5"] <= times[name]["ms_p50"] <= times[name]["ms_p95"]
