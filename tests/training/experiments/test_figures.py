"""The learning curve and the paper's Figure 3: PNG files, and the kernels in their places."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import load_file

from training.experiments.figures import draw_figure_3
from training.learning.log import draw_learning_curve
from training.network.model import WEIGHTS_FILE, read_card, write_card


def log_line(epoch: int, **changes: float) -> dict[str, Any]:
    figures = {
        "learning_rate": 0.1,
        "train_loss": 2.0,
        "train_error": 0.5,
        "val_loss": 3.0,
        "val_top1": 0.25,
        "val_top5": 0.75,
    }
    return {"epoch": epoch, **figures, **changes}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures on their way to a file."""
    figures: list[Figure] = []
    for module in ("learning.log", "experiments.figures"):
        monkeypatch.setattr(
            f"training.{module}.save_figure", lambda figure, _: figures.append(figure)
        )
    return figures


def assert_is_a_picture(file: Path) -> None:
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(set(image.convert("L").tobytes())) > 10


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_the_learning_curve_is_a_png(num_epochs: int, tmp_path: Path) -> None:
    draw_learning_curve(
        [log_line(number) for number in range(1, num_epochs + 1)], tmp_path / "curve.png"
    )
    assert_is_a_picture(tmp_path / "curve.png")
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_the_learning_curve_shows_loss_error_in_percent_and_rate_by_epoch(
    drawn: list[Figure],
) -> None:
    draw_learning_curve(
        [log_line(1), log_line(2, train_loss=1.0, val_top1=0.5, learning_rate=0.05)],
        Path("unused.png"),
    )
    losses, errors, rates = drawn[0].axes
    curves = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in losses.lines}
    assert curves == {"training (augmented)": [[1, 2], [2, 1]], "validation": [[1, 3], [2, 3]]}
    assert [np.asarray(line.get_ydata()).tolist() for line in errors.lines] == [
        [50, 50],
        [75, 50],
        [25, 25],
    ]
    assert np.asarray(rates.lines[0].get_ydata()).tolist() == [0.1, 0.05]


def test_figure_3_is_a_png(tiny_model: Path, tmp_path: Path) -> None:
    draw_figure_3(tiny_model, tmp_path / "figure-3.png")
    assert_is_a_picture(tmp_path / "figure-3.png")


def test_figure_3_has_a_tile_for_each_kernel_the_first_towers_above_the_seconds(
    tiny_model: Path, drawn: list[Figure]
) -> None:
    draw_figure_3(tiny_model, Path("unused.png"))
    sheet = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert sheet.shape == (6 * 13, 16 * 13, 3)  # 96 tiles of 11 pixels and a border
    kernels = load_file(tiny_model / WEIGHTS_FILE)["convolutions.conv1.weight"].transpose(
        0, 2, 3, 1
    )
    for number, kernel in enumerate(kernels):
        row, column = divmod(number, 16)
        tile = sheet[13 * row : 13 * row + 13, 13 * column : 13 * column + 13]
        assert (tile[[0, -1]] == 1).all()
        assert (tile[:, [0, -1]] == 1).all()
        # Each kernel spans black to white, so that faint ones can be seen as well.
        np.testing.assert_allclose(
            tile[1:-1, 1:-1], (kernel - kernel.min()) / (kernel.max() - kernel.min()), atol=1e-6
        )
    assert (
        "96 kernels of conv1; the upper half is the first tower's" in drawn[0].axes[0].get_title()
    )


def test_figure_3_of_one_tower_names_no_first_tower(
    tiny_model: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=os.link))
    card = read_card(model)
    for changes in ({"num_towers": 1}, {"layout": "torchvision"}):
        write_card(dataclasses.replace(card, architecture={**card.architecture, **changes}), model)
        draw_figure_3(model, Path("unused.png"))
        assert drawn[-1].axes[0].get_title() == "96 kernels of conv1"
