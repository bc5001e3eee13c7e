"""The first weights of a new last layer."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from training.learning.checkpoint import CHECKPOINT_FILE, write_checkpoint
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate
from training.learning.last_layer import first_weights, network_with_probe
from training.learning.plan import Split
from training.learning.recipe import modern
from training.learning.request import InitialModel
from training.learning.training_images import DecodedImages
from training.network.alexnet import AlexNet, Architecture, initialize

CPU = torch.device("cpu")
LAST_LAYERS: tuple[Literal["random", "probe"], ...] = ("random", "probe")


def small_architecture(num_classes: int) -> Architecture:
    return Architecture(
        layout="paper", normalization="none", num_classes=num_classes, image_size=67
    )


def old_weights() -> dict[str, Tensor]:
    """The weights of a network, without its last layer."""
    network = AlexNet(small_architecture(7))
    initialize(network, "kaiming", 0)
    state = network.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("output.")}


def shades(num_classes: int, per_class: int) -> Split:
    """Canvases with a noisy grey level for each class."""
    random = np.random.default_rng(0)
    targets = np.arange(num_classes * per_class) % num_classes
    levels = 40 + 150 * targets[:, None, None, None] / num_classes
    canvases = levels + random.normal(0, 3, (len(targets), 77, 77, 3))
    return Split(canvases.clip(0, 255).astype(np.uint8), torch.from_numpy(targets))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_fitted_layer_answers_right_and_the_other_layers_stay(num_classes: int) -> None:
    weights, train = old_weights(), shades(num_classes, 6)
    network = network_with_probe(small_architecture(num_classes), weights, train, CPU)
    assert evaluate(network, train.canvases, train.targets).top1 == 1
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_of_many_images_a_part_of_each_class_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.learning.last_layer.MAX_IMAGES", 9)
    sizes: list[int] = []
    forward = AlexNet.forward

    def count_and_forward(self: AlexNet, images: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(AlexNet, "forward", count_and_forward)
    train = shades(3, 6)
    network = network_with_probe(small_architecture(3), old_weights(), train, CPU)
    assert sizes == [9]
    assert evaluate(network, train.canvases, train.targets).top1 == 1


def test_the_first_weights_say_which_layers_are_old() -> None:
    images = DecodedImages(shades(3, 6), shades(3, 2), [], "")
    state = {**old_weights(), "output.fc8.weight": torch.zeros(3, 4096)}
    state["output.fc8.bias"] = torch.zeros(3)
    initial = InitialModel("m", "0", ("a", "b", "c"), small_architecture(3), state)
    scratch = first_weights(None, ("a", "b", "c"), modern(), images, Workers())
    assert (scratch.tensors, scratch.old_layers, scratch.probe_top1) == (None, "none", None)
    same = first_weights(initial, ("a", "b", "c"), modern(), images, Workers())
    assert (same.old_layers, same.probe_top1) == ("all", None)
    assert same.tensors == state
    random, probe = (
        first_weights(
            initial,
            ("a", "b", "d"),
            dataclasses.replace(modern(), last_layer=start),
            images,
            Workers(),
        )
        for start in LAST_LAYERS
    )
    assert (random.old_layers, random.probe_top1) == ("hidden", None)
    assert random.tensors is not None
    assert random.tensors.keys() == old_weights().keys()
    assert (probe.old_layers, probe.probe_top1) == ("hidden", 1.0)
    assert probe.tensors is not None
    assert probe.tensors["output.fc8.weight"].abs().sum() > 0


def test_a_run_that_continues_takes_the_top1_from_its_checkpoint_and_fits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.learning.last_layer.network_with_probe", lambda *_: pytest.fail("fitted again")
    )
    recipe = dataclasses.replace(modern(), last_layer="probe")
    file = tmp_path / CHECKPOINT_FILE
    write_checkpoint(file, {"probe_top1": 0.25}, recipe=recipe, fingerprint="")
    initial = InitialModel(
        "m", "0", (), small_architecture(7), AlexNet(small_architecture(7)).state_dict()
    )
    images = DecodedImages(shades(3, 6), shades(3, 2), [], "")
    first = first_weights(initial, ("a", "b", "c"), recipe, images, Workers(), checkpoint=file)
    assert (first.old_layers, first.probe_top1) == ("hidden", 0.25)
