"""Plan: everything that a training run needs. It is complete before the first step.

A `Request` holds what the user asked for. A `Plan` holds the network, the images, and the
directory of the results.
"""

import os
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from training.data.images import Pixels
from training.learning.checkpoint import CHECKPOINT_FILE
from training.learning.distributed import Workers
from training.learning.optimizer import OldLayers
from training.learning.recipe import Recipe
from training.network.alexnet import Architecture

SHAPE_SETTINGS = (
    "layout",
    "normalization",
    "image_size",
    "dropout",
    "mean",
    "activation",
    "pooling",
    "num_towers",
    "kernels",
    "without_convolution",
    "has_sixth_convolution",
)
"""The settings of a recipe that are fields of an `Architecture` too."""


@dataclass(frozen=True)
class Split:
    """One part of a data set: the training images or the held-out images."""

    canvases: Pixels
    """(N, R, R, 3) uint8, memory-mapped or not."""
    targets: Tensor
    """(N,) int64: the index of each image's class."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training run with everything resolved: network, images, output directory."""

    recipe: Recipe
    architecture: Architecture
    train: Split
    held_out: Split
    directory: Path
    """The model directory. It also holds the checkpoint and the log."""
    fingerprint: str
    """Identifies the images and the initial weights.

    A checkpoint with another fingerprint is refused.
    """
    initial: Mapping[str, Tensor] | None = None
    """Initial weights by parameter name. Weights that are missing here are drawn at random. With
    None, all weights are drawn at random."""
    old_layers: OldLayers = "none"
    """The layers whose initial weights were learned on other images. `old_layers_rate` and
    `frozen_epochs` apply to them."""
    num_listed: int | None = None
    """Number of training images that the data set lists, readable or not. The checkpoint keeps it,
    because the recipe can follow from it."""
    probe_top1: float | None = None
    """Top-1 on the held-out images if the last layer starts as a probe. The checkpoint keeps it,
    because a resumed run does not fit the probe again."""
    tower_devices: Sequence[str] = ()
    """The two devices with one tower each. If this is empty, the whole network is on one device."""
    has_tensorboard: bool = False

    @property
    def checkpoint_file(self) -> Path:
        return self.directory / CHECKPOINT_FILE


def architecture_of(recipe: Recipe, num_classes: int) -> Architecture:
    """The architecture that a recipe asks for."""
    shapes = {name: getattr(recipe, name) for name in SHAPE_SETTINGS}
    return Architecture(num_classes=num_classes, **shapes)


def training_device(plan: Plan, workers: Workers) -> torch.device:
    """The device of the images and the loss: the first tower device, or this process's device."""
    return torch.device(plan.tower_devices[0]) if plan.tower_devices else workers.device


def uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the forward pass runs in bfloat16.

    With the precision `auto`, bfloat16 is used if the processor multiplies bfloat16 natively.
    """
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def is_compiled(recipe: Recipe, device: torch.device, num_processes: int = 1) -> bool:
    """Whether torch.compile compiles the network.

    With the setting `auto`, the network is compiled if it is trained on one GPU and if Triton and a
    C compiler are installed. torch.compile needs both. Compiling on several GPUs has not been
    tried.
    """
    if recipe.compilation != "auto":
        return recipe.compilation == "on"
    return device.type == "cuda" and num_processes == 1 and can_compile_for_gpu()


def can_compile_for_gpu() -> bool:
    """Whether this machine has Triton, a C compiler and Python's header files.

    torch.compile needs them for a GPU.
    """
    compilers = (os.environ.get("CC") or "gcc", "gcc", "clang")
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    return find_spec("triton") is not None and any(map(shutil.which, compilers)) and header.exists()


def executed_recipe(plan: Plan, workers: Workers) -> Recipe:
    """The plan's recipe, with every `auto` replaced by its value on these devices."""
    device = training_device(plan, workers)
    precision: Literal["bfloat16", "float32"] = (
        "bfloat16" if uses_bfloat16(plan.recipe, device) else "float32"
    )
    compiles = is_compiled(plan.recipe, device, workers.count) and not plan.tower_devices
    return replace(plan.recipe, precision=precision, compilation="on" if compiles else "off")
