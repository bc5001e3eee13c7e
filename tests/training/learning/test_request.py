"""A request: the recipe that follows from it, and the model that a run starts from."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.learning.small_requests import (
    QUICK,
    five,
    make_request,
    plan_of,
    refusal,
    write_images,
)
from tests.training.network.torchvision_files import write_torchvision_weights
from training.files import file_sha256
from training.learning.distributed import Workers
from training.learning.plan import Plan
from training.learning.request import (
    load_initial_model,
)
from training.learning.run import Run
from training.learning.session import train
from training.network.export import load_network
from training.network.importing import default_names
from training.network.model import read_card


def first_weights(plan: Plan) -> dict[str, Tensor]:
    """The weights that a run begins with."""
    return dict(Run.begin(plan, Workers()).network.state_dict())


def test_from_a_model_of_the_same_classes_all_weights_are_kept(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    settings = (*QUICK, "dropout=0.25")
    plan = plan_of(make_request(colour_folder, tmp_path, init=tiny_model, settings=settings))
    weights = first_weights(plan)
    network, _ = load_network(tiny_model)
    assert weights.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert plan.architecture == dataclasses.replace(network.architecture, dropout=0.25)


@pytest.mark.parametrize("start", ["random", "probe"])
def test_from_a_model_of_other_classes_only_the_last_layer_is_new(
    tiny_model: Path, tmp_path: Path, start: str
) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    settings = (*QUICK, f"last_layer={start}")
    request = make_request(data, tmp_path / "model", init=tiny_model, settings=settings)
    weights = first_weights(plan_of(request))
    anew = first_weights(plan_of(make_request(data, tmp_path / "scratch")))
    kept = load_network(tiny_model)[0].state_dict()
    last = {"output.fc8.weight", "output.fc8.bias"}
    assert weights["output.fc8.weight"].shape == (2, 4096)
    assert all(torch.equal(weights[name], kept[name]) for name in kept.keys() - last)
    assert all(torch.equal(weights[name], anew[name]) == (start == "random") for name in last)


@pytest.mark.parametrize("is_downloaded", [True, False])
def test_from_a_weights_file_all_but_the_last_layer_are_kept(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_downloaded: bool
) -> None:
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)  # the file becomes small
    file, expected = write_torchvision_weights(tmp_path, num_classes=10)
    if is_downloaded:
        monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", str(file))
    init = "imagenet" if is_downloaded else file
    plan = plan_of(make_request(colour_folder, tmp_path / "model", init=init, image_size=None))
    assert (plan.architecture.layout, plan.recipe.layout) == ("torchvision", "torchvision")
    assert (plan.architecture.num_classes, plan.recipe.image_size) == (3, 224)
    weights = first_weights(plan)
    last = {"output.fc8.weight", "output.fc8.bias"}
    for name in expected.keys() - last:
        assert torch.equal(weights[name], expected[name]), name
    assert [weights[name].shape for name in sorted(last)] == [(3,), (3, 64)]
    assert weights["mean"].flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert plan.fingerprint.endswith(file_sha256(file))


def test_imagenets_classes_are_known_and_those_of_another_file_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)
    file, _ = write_torchvision_weights(tmp_path, num_classes=1000)
    initial = load_initial_model(str(file))
    assert initial is not None
    assert (initial.name, initial.id) == (str(file), file_sha256(file))
    assert initial.class_names == default_names(1000)
    assert "output.fc8.weight" in initial.weights_for(default_names(1000))
    other = load_initial_model(write_torchvision_weights(tmp_path, num_classes=10)[0])
    assert other is not None
    # The classes of `digits` are called 0 to 9. They are not those of an unknown network.
    assert "output.fc8.weight" not in other.weights_for(default_names(10))


def test_none_means_random_weights_and_a_path_can_be_called_imagenet(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_initial_model("none") is None
    assert load_initial_model(None) is None
    (tmp_path / "imagenet").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", str(tmp_path / "absent.pth"))
    for init in ("./imagenet", Path("imagenet")):
        initial = load_initial_model(init)
        assert initial is not None
        assert initial.id == read_card(tiny_model).id
    message = refusal(lambda: load_initial_model("imagenet"))
    assert message.startswith(f"LOOKALIKE_WEIGHTS_URL names {tmp_path / 'absent.pth'}, which does")


def test_a_run_cannot_start_from_a_directory_that_is_not_a_model(
    colour_folder: Path, tmp_path: Path
) -> None:
    message = refusal(
        lambda: train(make_request(colour_folder, tmp_path / "model", init=tmp_path / "absent"))
    )
    assert message == (
        f"{tmp_path / 'absent'} does not exist; --init takes imagenet, none, a model directory, "
        "or a .pth, .safetensors or .caffemodel file"
    )
    (tmp_path / "empty").mkdir()
    message = refusal(
        lambda: train(make_request(colour_folder, tmp_path / "model", init=tmp_path / "empty"))
    )
    assert message.startswith(f"{tmp_path / 'empty'} has no model.json")
    assert not (tmp_path / "model").exists()
