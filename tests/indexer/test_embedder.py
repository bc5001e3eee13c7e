"""The network on ONNX Runtime and on torch, and the classes that its logits name."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from indexer.embedder import Embedder, likeliest
from tests.conftest import pretend_agreement
from training.data.images import Pixels, read_square
from training.devices import Device
from training.errors import UserError
from training.network.export import load_network
from training.network.model import ModelError, read_card

DEVICES: tuple[Device, ...] = ("gpu", "cpu")


def relative_difference(array: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(array - expected).max() / np.abs(expected).max())


def test_torch_and_onnx_runtime_agree(tiny_model: Path, colour_folder: Path) -> None:
    squares = np.stack([read_square(file, 67) for file in sorted(colour_folder.rglob("*.png"))])
    embedding = Embedder(tiny_model).embed(squares)
    network, _ = load_network(tiny_model)
    with torch.inference_mode():
        logits, features = network(torch.from_numpy(squares))
    assert relative_difference(embedding.features, features.numpy()) < 1e-3
    assert relative_difference(embedding.logits, logits.numpy()) < 1e-3


def test_a_batch_and_single_images_have_the_same_features(
    tiny_model: Path, colour_folder: Path
) -> None:
    embedder = Embedder(tiny_model)
    squares = np.stack([read_square(file, 67) for file in sorted(colour_folder.rglob("*.png"))])
    alone = np.concatenate([embedder.embed(square[None]).features for square in squares])
    assert relative_difference(alone, embedder.embed(squares).features) < 1e-5


def test_likeliest_is_the_softmax_over_all_classes_in_order() -> None:
    scores = likeliest(np.log(np.array([0.1, 0.6, 0.3], np.float32)), ("a", "b", "c"), 2)
    assert [(score.name, score.index) for score in scores] == [("b", 1), ("c", 2)]
    np.testing.assert_allclose([score.probability for score in scores], [0.6, 0.3], rtol=1e-6)
    assert len(likeliest(np.zeros(3, np.float32), ("a", "b", "c"), 5)) == 3


def test_an_onnx_file_of_another_model_is_refused(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    mixture = Path(shutil.copytree(tiny_model, tmp_path / "mixture"))
    shutil.copyfile(other_model / "model.onnx", mixture / "model.onnx")
    with pytest.raises(ModelError, match="is damaged or belongs to another model"):
        Embedder(mixture)


def test_a_card_that_is_passed_is_not_read_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(tiny_model)
    monkeypatch.setattr("indexer.embedder.read_card", lambda _: pytest.fail("read again"))
    assert Embedder(tiny_model, card=card).card is card


def test_an_onnx_file_and_a_card_with_different_model_ids_are_refused(tiny_model: Path) -> None:
    card = replace(read_card(tiny_model), id="0" * 64)
    own_id = read_card(tiny_model).id[:12]
    message = (
        rf"belongs to model {own_id} but model\.json belongs to model 0{{12}}; "
        "to write the file again, run: lookalike export"
    )
    with pytest.raises(ModelError, match=message):
        Embedder(tiny_model, card=card)


def test_an_incomplete_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.json"):
        Embedder(tmp_path)


@pytest.mark.gpu
def test_the_gpu_and_onnx_runtime_agree(tiny_model: Path, colour_folder: Path) -> None:
    squares = np.stack([read_square(file, 67) for file in sorted(colour_folder.rglob("*.png"))])
    on_gpu, on_cpu = (
        Embedder(tiny_model, device=device).embed(squares).features for device in DEVICES
    )
    assert relative_difference(on_gpu, on_cpu) < 1e-3


def test_the_network_uses_no_more_threads_than_the_container_has_cores(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")  # one core
    monkeypatch.setattr("training.parallel.CGROUP", tmp_path)
    sessions = []
    create = onnxruntime.InferenceSession

    def remember(*arguments: Any, **options: Any) -> Any:
        sessions.append(create(*arguments, **options))
        return sessions[-1]

    monkeypatch.setattr("onnxruntime.InferenceSession", remember)
    Embedder(tiny_model)
    Embedder(tiny_model, num_threads=2)
    threads = [session.get_session_options().intra_op_num_threads for session in sessions]
    assert threads == [1, 2]


@pytest.fixture
def own_int8_model(int8_model: Path, tmp_path: Path) -> Path:
    """A copy of `int8_model`, as hard links. A test must replace a file, not write into it."""
    return Path(shutil.copytree(int8_model, tmp_path / "model", copy_function=os.link))


@pytest.fixture
def is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with instructions for int8."""
    monkeypatch.setattr("indexer.embedder.has_int8_instructions", lambda: True)


def colour_squares(folder: Path) -> Pixels:
    return np.stack([read_square(file, 67) for file in sorted(folder.rglob("*.png"))])


def test_int8_answers_about_like_float32(int8_model: Path, colour_folder: Path) -> None:
    squares = colour_squares(colour_folder)
    in_float32, in_int8 = Embedder(int8_model), Embedder(int8_model, precision="int8")
    assert (in_float32.precision, in_int8.precision) == ("float32", "int8")
    expected, found = in_float32.embed(squares), in_int8.embed(squares)
    assert not np.array_equal(found.features, expected.features)
    for array, known in ((found.features, expected.features), (found.logits, expected.logits)):
        assert array.dtype == np.float32
        assert np.linalg.norm(array - known) < 0.05 * np.linalg.norm(known)


@pytest.mark.usefixtures("is_fast")
def test_auto_is_int8_if_enough_answers_agree(own_int8_model: Path) -> None:
    assert Embedder(own_int8_model, precision="auto").precision == "float32"  # few images
    pretend_agreement(own_int8_model)
    assert Embedder(own_int8_model, precision="auto").precision == "int8"
    assert Embedder(own_int8_model, precision="float32").precision == "float32"
    assert Embedder(own_int8_model).precision == "float32"
    pretend_agreement(own_int8_model, nearest10=0.98)
    assert Embedder(own_int8_model, precision="auto").precision == "float32"


def test_auto_is_float32_without_instructions_for_int8(
    own_int8_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_agreement(own_int8_model)
    monkeypatch.setattr("indexer.embedder.has_int8_instructions", lambda: False)
    assert Embedder(own_int8_model, precision="auto").precision == "float32"
    assert Embedder(own_int8_model, precision="int8").precision == "int8"


@pytest.mark.usefixtures("is_fast")
def test_a_model_without_int8_says_how_to_make_it(
    tiny_model: Path, own_int8_model: Path, tmp_path: Path
) -> None:
    assert Embedder(tiny_model, precision="auto").precision == "float32"
    command = f"has no model.int8.onnx; to make it, run: lookalike export {tiny_model} --int8 DATA$"
    with pytest.raises(ModelError, match=command):
        Embedder(tiny_model, precision="int8")
    pretend_agreement(own_int8_model)
    (own_int8_model / "model.int8.onnx").unlink()
    (own_int8_model / "weights.safetensors").unlink()  # as in an index
    assert Embedder(own_int8_model, precision="auto").precision == "float32"
    message = r"lookalike export MODEL --int8 DATA; then pass --model MODEL, or build the index"
    with pytest.raises(ModelError, match=message):
        Embedder(own_int8_model, precision="int8")


def test_a_damaged_int8_file_and_one_of_another_model_are_refused(own_int8_model: Path) -> None:
    card = read_card(own_int8_model)
    message = f"lookalike export {own_int8_model} --int8 DATA"
    with pytest.raises(ModelError, match=message):
        Embedder(own_int8_model, card=replace(card, id="0" * 64), precision="int8")
    content = (own_int8_model / "model.int8.onnx").read_bytes()
    (own_int8_model / "model.int8.onnx").unlink()
    (own_int8_model / "model.int8.onnx").write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"model\.int8\.onnx should have SHA-256"):
        Embedder(own_int8_model, precision="int8")


def test_int8_runs_on_the_cpu_only(int8_model: Path) -> None:
    with pytest.raises(UserError, match=r"int8 runs on the CPU only; pass --device cpu"):
        Embedder(int8_model, device="gpu", precision="int8")
    assert Embedder(int8_model, device="auto", precision="int8").device == "cpu"


def test_another_precision_of_the_same_model_is_loaded_once(int8_model: Path) -> None:
    in_int8 = Embedder(int8_model, precision="int8")
    assert in_int8.with_precision("int8") is in_int8
    in_float32 = in_int8.with_precision("float32")
    assert in_float32.precision == "float32"
    assert in_float32.card is in_int8.card
    assert in_int8.with_precision("float32") is in_float32
