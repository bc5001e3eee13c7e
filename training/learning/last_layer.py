"""The first weights of a new last layer: a logistic regression on the features of the old layers.

A random last layer sends random gradients to the old layers, and these gradients destroy what the
old layers know (Kumar et al. 2022). Fitting the last layer first avoids that.
"""

from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn

from training.data.loader import batches, squares
from training.learning.plan import Split
from training.logistic_regression import (
    INVERSE_PENALTIES,
    choose_settings,
    fit_linear,
    stratified_sample,
)
from training.network.alexnet import AlexNet
from training.progress import Bar

MAX_IMAGES = 10_000
"""Maximum number of images that the last layer is fitted to. If there are more, a sample of each
class is used. Training goes on with all images."""


def fit_last_layer(network: AlexNet, train: Split) -> None:
    """Set the last layer's weights by a logistic regression on the features of training images.

    The penalty is chosen by cross-validation. Fitting needs scikit-learn.
    """
    targets = train.targets.numpy()
    chosen = np.sort(stratified_sample(targets, MAX_IMAGES))
    features = _features(network, train, torch.from_numpy(chosen)).numpy()  # (n, 4096)
    with Bar("Fitting the last layer", len(INVERSE_PENALTIES), "fits") as bar:
        scaling, inverse_penalty = choose_settings(features, targets[chosen], bar, ("standard",))
        weights, bias = fit_linear(features, targets[chosen], scaling, inverse_penalty)
    with torch.no_grad():
        layer = network.get_submodule("output.fc8")
        assert isinstance(layer, nn.Linear)
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(bias))


@torch.inference_mode()
def _features(network: AlexNet, train: Split, chosen: Tensor) -> Tensor:
    """The features (n, 4096) of the central squares of the chosen canvases, on the CPU."""
    size = network.architecture.image_size
    network.eval()
    positions = chosen.split(128)
    with closing(batches(train.canvases, positions, network.std.device)) as canvas_batches:
        features = [
            network(squares(batch, size))[1].float().cpu()  # (B, R, R, 3) -> (B, 4096)
            for batch in canvas_batches
        ]
    return torch.cat(features)
