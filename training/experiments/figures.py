"""The paper's Figures 1 and 3, drawn from the logs of an ablation and from a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from training.experiments.variations import BASELINE
from training.learning.log import LOG_FILE, read_log
from training.network.model import WEIGHTS_FILE, ModelCard, check_file, read_card
from training.plotting import plt, save_figure

Floats = npt.NDArray[np.float32]
FIGURE_3_COLUMNS = 16
TILE_BORDER_PX = 1


def draw_ablation_figure_1(directory: Path, file: Path) -> bool:
    """Draw Figure 1 from the logs of an ablation's runs of the variations baseline and tanh.

    If no run of these two variations has a log yet, nothing is drawn and False is returned.
    """
    titles = {BASELINE: "ReLU", "tanh": "tanh"}
    runs = {
        title: [read_log(log) for log in sorted(directory.glob(f"{name}-seed*/{LOG_FILE}"))]
        for name, title in titles.items()
    }
    if not any(runs.values()):
        return False
    draw_figure_1({title: logs for title, logs in runs.items() if logs}, file)
    return True


def draw_figure_1(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], file: Path) -> None:
    """Draw the training error of each epoch as a PNG file.

    `runs` maps a name to the logs of its runs. Each name has its own colour, and each log has its
    own line. The paper's figure shows a four-layer network on CIFAR-10, with ReLUs (solid line) and
    with tanh (dashed line). Like the paper's figure, this one marks an error of 25 %.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, (name, logs) in enumerate(runs.items()):
        for position, log in enumerate(logs):
            axes.plot(
                [line["epoch"] for line in log],
                [line["train_error"] for line in log],
                color=f"C{number}",
                linestyle="--" if "tanh" in name else "-",
                label=name if position == 0 else None,
            )
    axes.axhline(0.25, color="0.6", linestyle=":", linewidth=1)
    axes.set(xlabel="epoch", ylabel="training error (augmented images)", ylim=(0, 1))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    save_figure(figure, file)


def draw_figure_3(model_directory: Path, file: Path, *, card: ModelCard | None = None) -> None:
    """Draw the kernels of conv1 as PNG; raises ModelError.

    The paper's network has 96 kernels of 11x11x3. If the network has two towers, the kernels of the
    first tower are above those of the second tower. If the card has been read already, pass it as
    `card`. By default, it is read from model.json.
    """
    card = card or read_card(model_directory)
    weights = load_file(check_file(model_directory, WEIGHTS_FILE, card.id))
    kernels = weights["convolutions.conv1.weight"].transpose(0, 2, 3, 1)  # (maps, 11, 11, 3)
    sheet = _sheet(kernels)
    num_rows = len(sheet) // (kernels.shape[1] + 2 * TILE_BORDER_PX)
    figure, axes = plt.subplots(figsize=(10, 0.4 + 0.62 * num_rows), layout="constrained")
    axes.imshow(sheet, interpolation="nearest")
    axes.axis("off")
    num_towers = card.architecture.get("num_towers", 2)  # missing in the first model.json files
    has_two_towers = card.architecture["layout"] == "paper" and num_towers == 2
    title = f"{len(kernels)} kernels of conv1"
    if has_two_towers:
        title += "; the upper half is the first tower's"
    axes.set_title(title, fontsize=10)
    save_figure(figure, file)


def _sheet(kernels: Floats) -> Floats:
    """Arrange kernels (n, side, side, 3) as tiles in one picture, with values in 0..1.

    Each tile has a white border. A row has 16 tiles. Each kernel is scaled to the range 0 to 1, so
    that faint kernels can be seen.
    """
    lowest, highest = kernels.min((1, 2, 3), keepdims=True), kernels.max((1, 2, 3), keepdims=True)
    scaled = (kernels - lowest) / np.maximum(highest - lowest, 1e-12)
    border = (TILE_BORDER_PX, TILE_BORDER_PX)
    tiles = np.pad(scaled, ((0, 0), border, border, (0, 0)), constant_values=1)
    side, num_rows = tiles.shape[1], -(-len(tiles) // FIGURE_3_COLUMNS)
    sheet = np.ones((num_rows * FIGURE_3_COLUMNS, side, side, 3), np.float32)
    sheet[: len(tiles)] = tiles
    grid = sheet.reshape(num_rows, FIGURE_3_COLUMNS, side, side, 3).swapaxes(1, 2)
    return grid.reshape(num_rows * side, FIGURE_3_COLUMNS * side, 3)
