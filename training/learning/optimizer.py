"""Momentum SGD, with the update of the paper or the update of torch."""

from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.learning.recipe import Recipe

OldLayers = Literal["none", "hidden", "all"]
"""The layers that begin with the weights of another network: none, all but the last, or all."""


class ScalingSGD(torch.optim.SGD):
    """Fused SGD. Its update can divide all gradients by one number."""

    grad_scale: Tensor | None = None
    """The divisor. The fused update reads this attribute, as it does with torch.amp.GradScaler."""


def build_optimizer(
    network: nn.Module, recipe: Recipe, old_layers: OldLayers = "none"
) -> ScalingSGD:
    """The optimizer of a network's parameters. Each update passes over their memory once.

    If `decay_biases` is false, only the weights of convolutions and fully connected layers decay.
    `old_layers` are the layers to which `old_layers_rate` and `frozen_epochs` apply. They form
    groups of their own only if the recipe treats them differently. Otherwise, the groups are those
    of earlier versions, whose checkpoints can still be resumed.
    """
    if recipe.old_layers_rate == 1 and not recipe.frozen_epochs:
        old_layers = "none"
    groups = []
    for is_old, does_decay in product((False, True), (True, False)):
        members = [
            parameter
            for name, parameter in network.named_parameters()
            if _is_old(name, old_layers) == is_old and (parameter.ndim > 1) == does_decay
        ]
        decay = recipe.weight_decay if does_decay or recipe.decay_biases else 0.0
        if members:
            groups.append({"params": members, "weight_decay": decay, "is_old": is_old})
    return ScalingSGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def _is_old(name: str, old_layers: OldLayers) -> bool:
    return old_layers == "all" or (old_layers == "hidden" and not name.startswith("output."))


def load_optimizer(optimizer: ScalingSGD, state: dict[str, Any]) -> None:
    """Load the state of a checkpoint, except for the weight decay.

    A resumed run may change the weight decay, so the value of its recipe is kept.
    """
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay


def set_rate(optimizer: ScalingSGD, rate: float, recipe: Recipe) -> None:
    """Set the learning rate of the next step. Old layers can have a lower rate.

    If `rate_in_velocity` is true, the momentum is set too, so that the update is that of the paper.
    Section 5 prints the update v <- m v - rate (g + decay w), w <- w + v. torch stores
    u = -v / rate instead of v. If torch's momentum is m * old rate / new rate, torch's update of u
    equals the printed update of v. So the velocity v stays the same when the rate changes.
    """
    for group in optimizer.param_groups:
        # Checkpoints of earlier versions do not have the key `is_old`.
        share = recipe.old_layers_rate if group.get("is_old") else 1.0
        if recipe.rate_in_velocity and recipe.momentum and rate * share:
            # With a momentum of 0, torch would keep no velocity at all.
            group["momentum"] = max(recipe.momentum * group["lr"] / (rate * share), 1e-30)
        group["lr"] = rate * share


def drop_old_gradients(optimizer: ScalingSGD) -> None:
    """Forget the gradients of the old layers, so that the next update leaves these layers alone."""
    for group in optimizer.param_groups:
        if group.get("is_old"):
            for parameter in group["params"]:
                parameter.grad = None


def clip_and_update(optimizer: ScalingSGD, max_gradient_norm: float) -> None:
    """Update the parameters once.

    If the norm of all gradients together exceeds `max_gradient_norm`, all gradients are divided by
    one number, so that their norm equals `max_gradient_norm`. 0 means no bound. The fused update
    does the division, so it needs no extra pass over the memory.
    """
    if max_gradient_norm:
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norm = nn.utils.get_total_norm(gradients)
        optimizer.grad_scale = (norm / max_gradient_norm).clamp(min=1)
    optimizer.step()
