"""Saved networks answer alike in torch and in ONNX Runtime, and damaged files are refused."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from training.files import file_sha256
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import (
    export_model,
    installed_versions,
    load_network,
    save_model,
    write_onnx,
)
from training.network.model import (
    CARD_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelError,
    check_file,
    read_card,
    write_card,
)
from training.network.preprocessing import measure_pixels


def random_images(count: int, size: int = 67) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def open_onnx(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def onnx_metadata(directory: Path) -> dict[str, str]:
    metadata: dict[str, str] = open_onnx(directory / ONNX_FILE).get_modelmeta().custom_metadata_map
    return metadata


def assert_onnx_answers_like_torch(file: Path, network: AlexNet) -> None:
    session = open_onnx(file)
    for count in (1, 3):
        images = random_images(count)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images))
        answers = session.run(["logits", "features"], {"images": images})
        for answer, tensor in zip(answers, expected, strict=True):
            assert answer.shape == tensor.shape
            assert answer.dtype == np.float32
            largest = float(tensor.abs().max())
            assert largest > 0
            np.testing.assert_allclose(answer, tensor.numpy(), rtol=1e-3, atol=1e-3 * largest)


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model for a test that changes files.

    The copies are hard links, so a test must replace a file and never write into it.
    """
    return Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=os.link))


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)


def rewrite_card(directory: Path, **changes: Any) -> None:
    write_card(dataclasses.replace(read_card(directory), **changes), directory)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The tiny model, tested below, has the third combination: the paper's layout with batch norm.
@pytest.mark.parametrize(
    ("layout", "normalization", "mean"),
    [("paper", "response", "image"), ("torchvision", "none", "channel")],
)
def test_onnx_runtime_answers_like_torch_at_any_batch_size(
    layout: Any, normalization: Any, mean: Any, tmp_path: Path
) -> None:
    architecture = Architecture(
        layout=layout, normalization=normalization, num_classes=3, image_size=67, mean=mean
    )
    network = AlexNet(architecture)
    initialize(network, "kaiming", seed=0)
    network.set_preprocessing(measure_pixels(random_images(10, 77), 67))
    write_onnx(network.eval(), tmp_path / "model.onnx", "an id")
    assert_onnx_answers_like_torch(tmp_path / "model.onnx", network)


def test_onnx_runtime_answers_like_the_network_loaded_from_the_weights(tiny_model: Path) -> None:
    assert_onnx_answers_like_torch(tiny_model / ONNX_FILE, load_network(tiny_model)[0])


def test_the_model_id_is_the_checksum_of_the_weights_and_is_in_the_onnx_file(
    tiny_model: Path, other_model: Path
) -> None:
    for directory in (tiny_model, other_model):
        card = read_card(directory)
        assert card.id == file_sha256(directory / WEIGHTS_FILE)
        assert card.onnx_sha256 == file_sha256(directory / ONNX_FILE)
        assert onnx_metadata(directory) == {"model_id": card.id}
    assert read_card(tiny_model).id != read_card(other_model).id


def test_a_model_directory_has_three_files_with_the_usual_permissions(tiny_model: Path) -> None:
    names = sorted(file.name for file in tiny_model.iterdir())
    assert names == [CARD_FILE, ONNX_FILE, WEIGHTS_FILE]
    assert {file.stat().st_mode & 0o777 for file in tiny_model.iterdir()} == {0o666 & ~umask()}


def test_a_network_is_loaded_as_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = Architecture(
        layout="paper",
        normalization="response",
        num_classes=2,
        image_size=67,
        dropout=0.25,
        mean="image",
    )
    network = AlexNet(architecture)
    network.set_preprocessing(measure_pixels(random_images(10, 77), 67))
    # Writing the ONNX file takes seconds and is tested elsewhere.
    monkeypatch.setattr(
        "training.network.export.write_onnx", lambda network, file, model_id: file.touch()
    )
    card = save_model(
        network,
        tmp_path,
        class_names=("a", "b"),
        recipe={"epochs": 1},
        data={"name": "none"},
        metrics={"top1": 0.5},
    )
    loaded, loaded_card = load_network(tmp_path)
    assert loaded_card == card == read_card(tmp_path)
    assert (card.class_names, card.image_size) == (("a", "b"), 67)
    assert (card.recipe, card.metrics) == ({"epochs": 1}, {"top1": 0.5})
    assert card.versions == installed_versions(torch.device("cpu"))
    assert loaded.architecture == network.architecture
    assert not loaded.training
    state = load_file(tmp_path / WEIGHTS_FILE)
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
        assert torch.equal(state[name], tensor), name


def test_with_a_card_at_hand_the_card_file_is_not_read_again(own_model: Path) -> None:
    card = read_card(own_model)
    (own_model / CARD_FILE).unlink()
    network, same_card = load_network(own_model, card=card)
    assert same_card is card
    assert network.architecture == Architecture(**card.architecture)


def test_a_card_at_hand_must_belong_to_the_weights(own_model: Path, other_model: Path) -> None:
    message = refusal(lambda: load_network(own_model, card=read_card(other_model)))
    assert f"{WEIGHTS_FILE} should have SHA-256 {read_card(other_model).id[:12]}" in message


def test_the_versions_include_the_packages_and_on_a_gpu_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.version.cuda", "12.8")
    on_cpu = installed_versions(torch.device("cpu"))
    assert on_cpu.keys() >= {"python", "lookalike", "torch", "onnx", "numpy", "pillow"}
    assert "cuda" not in on_cpu
    assert installed_versions(torch.device("cuda")) == {**on_cpu, "cuda": "12.8"}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> str:
        if name == "lookalike":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("training.network.export.version", not_installed)
    versions = installed_versions(torch.device("cpu"))
    assert "lookalike" not in versions
    assert versions["torch"] == "1.0"


def test_export_writes_the_onnx_file_again_from_the_weights(own_model: Path) -> None:
    before = read_card(own_model)
    damage(own_model / ONNX_FILE)
    rewrite_card(own_model, onnx_sha256=file_sha256(own_model / ONNX_FILE))
    assert export_model(own_model) == own_model / ONNX_FILE
    after = read_card(own_model)
    assert dataclasses.replace(after, onnx_sha256=before.onnx_sha256) == before
    check_file(own_model, ONNX_FILE, after.onnx_sha256)
    assert onnx_metadata(own_model) == {"model_id": before.id}
    assert_onnx_answers_like_torch(own_model / ONNX_FILE, load_network(own_model)[0])


def test_damaged_or_missing_weights_are_refused(own_model: Path) -> None:
    damage(own_model / WEIGHTS_FILE)
    message = refusal(lambda: load_network(own_model))
    assert f"{WEIGHTS_FILE} should have SHA-256 {read_card(own_model).id[:12]} but has" in message
    assert message == refusal(lambda: export_model(own_model))
    (own_model / WEIGHTS_FILE).unlink()
    assert f"{WEIGHTS_FILE} is missing" in refusal(lambda: load_network(own_model))


def test_a_damaged_onnx_file_and_one_of_another_model_are_refused(
    own_model: Path, other_model: Path
) -> None:
    sha256 = read_card(own_model).onnx_sha256
    damage(own_model / ONNX_FILE)
    message = refusal(lambda: check_file(own_model, ONNX_FILE, sha256))
    assert "is damaged or belongs to another model" in message
    os.replace(shutil.copy(other_model / ONNX_FILE, own_model / "copy"), own_model / ONNX_FILE)
    message = refusal(lambda: check_file(own_model, ONNX_FILE, sha256))
    assert "is damaged or belongs to another model" in message


@pytest.mark.parametrize(
    "change", [{"num_classes": 4}, {"normalization": "response"}, {"depth": 9}, {"layout": "vgg"}]
)
def test_a_card_that_describes_another_network_than_the_weights_is_refused(
    own_model: Path, change: dict[str, Any]
) -> None:
    rewrite_card(own_model, architecture={**read_card(own_model).architecture, **change})
    message = refusal(lambda: load_network(own_model))
    assert "model.json does not describe the network in weights.safetensors" in message


def test_a_directory_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    assert f"{tmp_path} has no model.json" in refusal(lambda: load_network(tmp_path))
    assert f"{tmp_path} has no model.json" in refusal(lambda: export_model(tmp_path))


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
