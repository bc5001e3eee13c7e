"""A model directory gets its network in int8, and model.json says how well it agrees."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.network.quantization.networks import made_up_squares, relative_error
from training.files import file_sha256
from training.network.model import (
    INT8_FILE,
    ONNX_FILE,
    Agreement,
    Int8Card,
    ModelError,
    read_card,
    write_card,
)
from training.network.onnx_session import answers, open_session
from training.network.quantization.images import QUICK, Amounts, Images, divide
from training.network.quantization.int8_file import describe, write_int8


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, as hard links. A test must replace a file, not write into it."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=os.link))


def made_up_images(amounts: Amounts) -> Images:
    held_out = made_up_squares(8, seed=1)
    targets = np.zeros(8, np.int64)
    return divide(made_up_squares(30), held_out, targets, amounts)


@pytest.mark.parametrize("amounts", [Amounts(calibration=16, choice=8), QUICK])
def test_the_card_describes_the_file_and_its_agreement(own_model: Path, amounts: Amounts) -> None:
    before = read_card(own_model)
    images = made_up_images(amounts)
    int8 = write_int8(own_model, images, data="spots")
    assert replace(read_card(own_model), int8=None) == before
    assert read_card(own_model).int8 == int8
    assert int8.sha256 == file_sha256(own_model / INT8_FILE)
    assert int8.calibration == {
        "data": "spots",
        "method": "least squared error",
        "num_images": len(images.calibration),
        "num_choice_images": len(images.choice),
    }
    in_float32 = open_session(own_model / ONNX_FILE)
    in_int8 = open_session(own_model / INT8_FILE)
    assert in_int8.get_modelmeta().custom_metadata_map == {"model_id": before.id}
    expected, found = (answers(session, images.report) for session in (in_float32, in_int8))
    assert relative_error(found[1], expected[1]) < 0.05
    agreement = int8.agreement
    assert agreement.num_images == 8
    assert agreement.num_indexed == 30 - len(images.choice)
    assert agreement.top1 == np.mean(expected[0].argmax(1) == found[0].argmax(1))
    assert agreement.accuracy_float32 == np.mean(expected[0].argmax(1) == 0)
    assert agreement.accuracy_int8 == np.mean(found[0].argmax(1) == 0)
    assert 0.99 < agreement.cosine <= 1


def test_an_interruption_leaves_a_model_without_int8(
    own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(own_model)
    write_card(replace(card, int8=made_up_card()), own_model)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    module = "training.network.quantization.int8_file"
    monkeypatch.setattr(f"{module}.write_atomically", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_int8(own_model, made_up_images(QUICK), data="spots")
    assert read_card(own_model) == card


def test_a_damaged_model_is_refused(own_model: Path) -> None:
    content = (own_model / ONNX_FILE).read_bytes()
    (own_model / ONNX_FILE).unlink()
    (own_model / ONNX_FILE).write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelError, match="is damaged or belongs to another model"):
        write_int8(own_model, made_up_images(QUICK), data="spots")
    assert not (own_model / INT8_FILE).exists()


def made_up_card(*, float32_layers: tuple[str, ...] = (), **changes: Any) -> Int8Card:
    agreement = Agreement(top1=1, nearest10=0.99, cosine=1, num_images=1200, num_indexed=1000)
    return Int8Card(
        sha256="0",
        float32_layers=float32_layers,
        calibration={},
        agreement=replace(agreement, **changes),
    )


def test_a_line_says_how_well_the_network_agrees_and_whether_it_is_used() -> None:
    assert describe(made_up_card()) == (
        "model.int8.onnx: 100.0% of the classes and 99.0% of the 10 nearest are as in float32, "
        "on 1,200 images; it is the default on processors with int8 instructions"
    )
    text = describe(made_up_card(float32_layers=("conv1", "fc8"), nearest10=0.9))
    assert text.endswith(
        "90.0% of the 10 nearest are as in float32, on 1,200 images; conv1, fc8 in float32; "
        "that is not enough, so it is used only with --precision int8"
    )
    assert describe(made_up_card(num_images=20)).endswith(
        "these are too few images to rely on, so it is used only with --precision int8"
    )
