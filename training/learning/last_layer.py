"""The first weights of a new last layer: a probe, fitted on the features of the old layers.

A random last layer sends random gradients to the old layers, and these gradients destroy a part of
what the old layers know (Kumar et al. 2022). A probe is a logistic regression. It is where training
would end if the old layers were frozen.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.loader import batches, squares
from training.learning.checkpoint import read_probe_top1
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate
from training.learning.optimizer import OldLayers
from training.learning.plan import Split
from training.learning.recipe import Recipe
from training.learning.request import InitialModel
from training.learning.training_images import DecodedImages
from training.logistic_regression import (
    INVERSE_PENALTIES,
    choose_settings,
    fit_linear,
    stratified_sample,
)
from training.network.alexnet import AlexNet, Architecture
from training.progress import Bar, console

MAX_IMAGES = 10_000
"""Maximum number of images that the last layer is fitted to. If there are more, a sample of each
class is used. Training goes on with all images."""
MAX_CLASSES = 1000
"""With more classes, a probe takes too long, and the last layer starts from random weights."""


@dataclass(frozen=True)
class FirstWeights:
    """The weights that a run starts from, and what is known about them."""

    tensors: Mapping[str, Tensor] | None
    """By parameter name. Weights that are missing are drawn at random. None means all of them."""
    old_layers: OldLayers
    probe_top1: float | None
    """Top-1 on the held-out images if the last layer is a probe, from 0 to 1. Otherwise None."""


def first_weights(
    initial: InitialModel | None,
    class_names: Sequence[str],
    recipe: Recipe,
    images: DecodedImages,
    workers: Workers,
    *,
    checkpoint: Path | None = None,
) -> FirstWeights:
    """The first weights of a run from an initial model, or of a run from random weights.

    If the classes differ, the last layer is new. With last_layer=probe, it is fitted here, and its
    top-1 is printed. If the run continues from `checkpoint`, nothing is fitted, because the
    checkpoint has the weights and the top-1; raises TrainingError if it is damaged.
    """
    if initial is None:
        return FirstWeights(None, "none", None)
    weights = initial.weights_for(class_names)
    if len(weights) == len(initial.state):
        return FirstWeights(weights, "all", None)
    if checkpoint is not None:
        return FirstWeights(weights, "hidden", read_probe_top1(checkpoint))
    if recipe.last_layer == "random" or not workers.is_first:
        # The other processes receive the weights of the first process.
        return FirstWeights(weights, "hidden", None)
    if len(class_names) > MAX_CLASSES:
        console.print(
            f"The last layer starts at random, because there are over {MAX_CLASSES:,} classes"
        )
        return FirstWeights(weights, "hidden", None)
    architecture = initial.architecture_for(len(class_names), recipe.dropout)
    network = network_with_probe(architecture, weights, images.train, workers.device)
    probe_top1 = evaluate(network, images.held_out.canvases, images.held_out.targets).top1
    if workers.is_first:
        console.print(f"The last layer starts as a probe with top-1 {probe_top1:.2%}")
    tensors = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    return FirstWeights(tensors, "hidden", probe_top1)


def network_with_probe(
    architecture: Architecture, weights: Mapping[str, Tensor], train: Split, device: torch.device
) -> AlexNet:
    """A network with the given weights and a last layer that is fitted to the training images.

    `weights` contain all layers but the last, and the preprocessing. The penalty is chosen by
    cross-validation.
    """
    network = AlexNet(architecture)
    network.load_state_dict(weights, strict=False)
    network.to(device).eval()
    targets = train.targets.numpy()
    chosen = np.sort(stratified_sample(targets, MAX_IMAGES))
    features = _features(network, train, torch.from_numpy(chosen)).numpy()  # (n, 4096)
    with Bar("Fitting the last layer", len(INVERSE_PENALTIES) + 1, "fits") as bar:
        scaling, inverse_penalty = choose_settings(features, targets[chosen], bar, ("standard",))
        weight, bias = fit_linear(features, targets[chosen], scaling, inverse_penalty)
        bar.advance(1)
    output = {"output.fc8.weight": weight, "output.fc8.bias": bias}
    network.load_state_dict(
        {name: torch.from_numpy(array) for name, array in output.items()}, strict=False
    )
    return network


@torch.inference_mode()
def _features(network: AlexNet, train: Split, chosen: Tensor) -> Tensor:
    """The features (n, 4096) of the central squares of the chosen canvases, on the CPU."""
    size = network.architecture.image_size
    with closing(batches(train.canvases, chosen.split(128), network.std.device)) as canvas_batches:
        features = [
            network(squares(batch, size))[1].float().cpu()  # (B, R, R, 3) -> (B, 4096)
            for batch in canvas_batches
        ]
    return torch.cat(features)
