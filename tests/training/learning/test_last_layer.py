"""The first weights of a new last layer."""

import numpy as np
import pytest
import torch

from training.learning.evaluation import evaluate
from training.learning.last_layer import fit_last_layer
from training.learning.plan import Split
from training.network.alexnet import AlexNet, Architecture, initialize


def random_network(num_classes: int) -> AlexNet:
    network = AlexNet(
        Architecture(
            layout="paper",
            normalization="none",
            num_classes=num_classes,
            image_size=67,
            dropout=0.5,
        )
    )
    initialize(network, "kaiming", 0)
    return network


def shades(num_classes: int, per_class: int) -> Split:
    """Canvases with a noisy grey level for each class."""
    random = np.random.default_rng(0)
    targets = np.arange(num_classes * per_class) % num_classes
    levels = 40 + 150 * targets[:, None, None, None] / num_classes
    canvases = levels + random.normal(0, 3, (len(targets), 77, 77, 3))
    return Split(canvases.clip(0, 255).astype(np.uint8), torch.from_numpy(targets))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_fitted_layer_answers_right_and_the_other_layers_stay(num_classes: int) -> None:
    network, train = random_network(num_classes), shades(num_classes, 6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fit_last_layer(network, train)
    assert evaluate(network, train.canvases, train.targets).top1 == 1
    changed = {
        name
        for name, tensor in network.state_dict().items()
        if not torch.equal(before[name], tensor)
    }
    assert changed == {"output.fc8.weight", "output.fc8.bias"}


def test_of_many_images_a_part_of_each_class_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.learning.last_layer.MAX_IMAGES", 9)
    sizes: list[int] = []
    forward = AlexNet.forward

    def count_and_forward(self: AlexNet, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(AlexNet, "forward", count_and_forward)
    network, train = random_network(3), shades(3, 6)
    fit_last_layer(network, train)
    assert sizes == [9]
    assert evaluate(network, train.canvases, train.targets).top1 == 1
