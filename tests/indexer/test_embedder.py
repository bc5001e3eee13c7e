"""The network on ONNX Runtime and on torch, and the classes that its logits name."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from indexer.embedder import Embedder, likeliest
from training.data.images import read_square
from training.devices import Device
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
