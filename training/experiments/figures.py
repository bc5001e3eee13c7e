"""Figures of a run or a model: its learning curve, and the paper's Figures 1 and 3. Matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

from training.network.model import WEIGHTS_FILE, check_file, read_card
from training.plotting import save_figure


def draw_figure_1(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], file: Path) -> None:
    """Training error by epoch, a colour for each name and a line for each of its logs, as PNG; the paper's dotted line is at 25 %.

    The paper drew a four-layer network on CIFAR-10, with ReLUs (solid) and with tanh (dashed); this is whatever `runs` trained.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, (name, logs) in enumerate(runs.items()):
        for place, log in enumerate(logs):
            axes.plot(
                [line["epoch"] for line in log],
                [line["train_error"] for line in log],
                color=f"C{number}",
                linestyle="--" if "tanh" in name else "-",
                label=name if place == 0 else None,
            )
    axes.axhline(0.25, color="0.6", linestyle=":", linewidth=1)
    axes.set(xlabel="epoch", ylabel="training error (augmented images)", ylim=(0, 1))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    save_figure(figure, file)


def draw_figure_3(model_directory: Path, file: Path) -> None:
    """The first convolution's kernels (96 of 11x11x3 in the paper's network), the first of two towers' above the second's, as PNG."""
    card = read_card(model_directory)
    kernels = load_file(check_file(model_directory, WEIGHTS_FILE, card.id))[
        "convolutions.conv1.weight"
    ]  # (maps, 3, 11, 11)
    num_columns = 16
    kernels = kernels.transpose(0, 2, 3, 1)
    lowest, highest = kernels.min((1, 2, 3), keepdims=True), kernels.max((1, 2, 3), keepdims=True)
    tiles = np.pad(
        (kernels - lowest) / np.maximum(highest - lowest, 1e-12),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
        constant_values=1,
    )
    num_rows = -(-len(tiles) // num_columns)
    sheet = np.ones((num_rows * num_columns, *tiles.shape[1:]), np.float32)
    sheet[: len(tiles)] = tiles
    side = tiles.shape[1]
    sheet = (
        sheet.reshape(num_rows, num_columns, side, side, 3)
        .swapaxes(1, 2)
        .reshape(num_rows * side, num_columns * side, 3)
    )
    figure, axes = plt.subplots(figsize=(10, 0.4 + 0.62 * num_rows), layout="constrained")
    axes.imshow(sheet, interpolation="nearest")
    axes.axis("off")
    num_towers = card.architecture.get("num_towers", 2)  # the first model.json had none
    has_two_towers = card.architecture["layout"] == "paper" and num_towers == 2
    axes.set_title(
        f"{len(kernels)} kernels of conv1"
        + ("; the upper half is the first tower's" if has_two_towers else ""),
        fontsize=10,
    )
    save_figure(figure, file)
