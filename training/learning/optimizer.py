"""Momentum SGD as torch has it, and as the paper prints it."""

import torch
from torch import nn

from training.learning.recipe import Recipe


def optimizer_of(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Momentum SGD, one pass over the memory a step; without `decay_biases`, only the weights of convolutions and full layers decay."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": recipe.weight_decay if recipe.decay_biases else 0.0},
    ]
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def set_rate(optimizer: torch.optim.SGD, rate: float, recipe: Recipe) -> None:
    """Sets the learning rate of the next step.

    The printed update, v <- m v - rate (g + decay w) and w <- w + v (section 5), is torch's with u = -v / rate in place of v, and
    so with a momentum of m times the old rate over the new one: the velocity keeps its length while the rate changes.
    """
    for group in optimizer.param_groups:
        if recipe.rate_in_velocity and recipe.momentum and rate:
            group["momentum"] = max(
                recipe.momentum * group["lr"] / rate, 1e-30
            )  # of 0, torch would keep no velocity at all
        group["lr"] = rate


def update(optimizer: torch.optim.SGD, max_gradient_norm: float) -> None:
    """One update, for which all gradients are scaled by one factor where their norm is above `max_gradient_norm`; 0 bounds none.

    The factor goes into the update's own pass over the memory, by the way that torch.amp.GradScaler takes.
    """
    if max_gradient_norm:
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        divisor = (nn.utils.get_total_norm(gradients) / max_gradient_norm).clamp(min=1)
        optimizer.grad_scale = divisor  # type: ignore[attr-defined]
    optimizer.step()
