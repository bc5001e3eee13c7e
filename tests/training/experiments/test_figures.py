"""The paper's Figures 1 and 3: the logs and the kernels are in their positions."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from tests.training.pictures import assert_is_a_picture
from training.experiments.figures import draw_ablation_figure_1, draw_figure_1, draw_figure_3
from training.network.model import CARD_FILE, WEIGHTS_FILE, read_card, write_card


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(
        "training.experiments.figures.save_figure", lambda figure, _: figures.append(figure)
    )
    return figures


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, of hard links, for a test that replaces files."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=os.link))


def test_figure_1_needs_a_run(ablated: Path, tmp_path: Path) -> None:
    assert not draw_ablation_figure_1(tmp_path, tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()
    assert draw_ablation_figure_1(ablated, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_figure_1_has_a_colour_per_name_and_a_line_per_log(drawn: list[Figure]) -> None:
    slow = [{"epoch": 1, "train_error": 0.8}, {"epoch": 2, "train_error": 0.5}]
    fast = [{"epoch": 1, "train_error": 0.4}, {"epoch": 2, "train_error": 0.2}]
    draw_figure_1({"ReLU": [fast, fast], "tanh": [slow]}, Path("unused.png"))
    *curves, quarter = drawn[0].axes[0].lines
    points = [np.asarray(curve.get_xydata()).tolist() for curve in curves]
    assert points == [[[1, 0.4], [2, 0.2]], [[1, 0.4], [2, 0.2]], [[1, 0.8], [2, 0.5]]]
    assert [curve.get_color() for curve in curves] == ["C0", "C0", "C1"]
    assert [curve.get_linestyle() for curve in curves] == ["-", "-", "--"]
    assert np.asarray(quarter.get_ydata()).tolist() == [0.25, 0.25]
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ReLU", "tanh"]


def test_figure_3_is_a_png(tiny_model: Path, tmp_path: Path) -> None:
    draw_figure_3(tiny_model, tmp_path / "figure-3.png")
    assert_is_a_picture(tmp_path / "figure-3.png")


def test_figure_3_has_a_tile_per_kernel_with_the_first_tower_above_the_second(
    tiny_model: Path, drawn: list[Figure]
) -> None:
    draw_figure_3(tiny_model, Path("unused.png"))
    sheet = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert sheet.shape == (6 * 13, 16 * 13, 3)  # 96 tiles of 11 pixels and a border
    weights = load_file(tiny_model / WEIGHTS_FILE)
    kernels = weights["convolutions.conv1.weight"].transpose(0, 2, 3, 1)
    for number, kernel in enumerate(kernels):
        row, column = divmod(number, 16)
        tile = sheet[13 * row : 13 * row + 13, 13 * column : 13 * column + 13]
        assert (tile[[0, -1]] == 1).all()
        assert (tile[:, [0, -1]] == 1).all()
        # Each kernel spans black to white, so that faint ones can be seen as well.
        scaled = (kernel - kernel.min()) / (kernel.max() - kernel.min())
        np.testing.assert_allclose(tile[1:-1, 1:-1], scaled, atol=1e-6)
    title = drawn[0].axes[0].get_title()
    assert "96 kernels of conv1; the upper half is the first tower's" in title


def test_figure_3_of_one_tower_does_not_mention_towers(
    own_model: Path, drawn: list[Figure]
) -> None:
    card = read_card(own_model)
    for changes in ({"num_towers": 1}, {"layout": "torchvision"}):
        changed = dataclasses.replace(card, architecture={**card.architecture, **changes})
        write_card(changed, own_model)
        draw_figure_3(own_model, Path("unused.png"))
        assert drawn[-1].axes[0].get_title() == "96 kernels of conv1"


def test_figure_3_does_not_read_a_card_at_hand_again(own_model: Path, drawn: list[Figure]) -> None:
    card = read_card(own_model)
    (own_model / CARD_FILE).unlink()
    draw_figure_3(own_model, Path("unused.png"), card=card)
    assert len(drawn) == 1
