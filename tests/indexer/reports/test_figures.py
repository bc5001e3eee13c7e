"""`lookalike figures`: which figures are drawn, and what Figure 4 shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from indexer.opening import OpenIndex, open_index
from indexer.reports.figures import (
    NUM_CLASSES,
    NUM_NEIGHBOURS,
    NUM_PREDICTIONS,
    NUM_QUERIES,
    draw_figure_4,
    draw_figures,
)
from tests.conftest import COLOURS
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.errors import UserError
from training.plotting import plt


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that would have been saved."""
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "indexer.reports.figures.save_figure", lambda figure, file: drawn.append(figure)
    )
    yield drawn
    for figure in drawn:
        plt.close(figure)


@pytest.fixture(scope="module")
def opened(tiny_index: Path) -> OpenIndex:
    return open_index(tiny_index)


def test_what_is_drawn_depends_on_what_is_given(
    tiny_model: Path, tiny_index: Path, colour_folder: Path, tmp_path: Path
) -> None:
    files = draw_figures(tiny_model, None, tmp_path)
    assert [file.name for file in files] == ["figure-3.png"]
    files = draw_figures(tiny_model, tiny_index, tmp_path, data=str(colour_folder))
    assert [file.name for file in files] == ["figure-3.png", "figure-4.png"]
    for file in files:
        with Image.open(file) as image:
            assert image.format == "PNG"


def test_an_ablation_without_runs_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    message = r"contains no run of baseline or tanh; to make them, run: lookalike ablate DATA --out"
    with pytest.raises(UserError, match=message):
        draw_figures(tiny_model, None, tmp_path / "out", ablation=tmp_path)


def test_figure_4_has_a_bar_per_class_with_the_right_class_in_another_colour(
    opened: OpenIndex, colour_folder: Path, figures: list[Figure]
) -> None:
    draw_figure_4(opened, open_dataset(colour_folder).part("all"), Path("unused.png"))
    (left, _) = figures[0].subfigs
    num_bars = min(NUM_CLASSES, len(COLOURS))
    charts = [axes for axes in left.axes if axes.patches]
    assert len(charts) == NUM_PREDICTIONS
    for chart in charts:
        assert len(chart.patches) == num_bars
        colours = [bar.get_facecolor() for bar in chart.patches]
        assert sorted(colours.count(colour) for colour in set(colours)) == [1, num_bars - 1]


def test_figure_4_shows_no_query_among_its_own_neighbours(
    opened: OpenIndex, colour_folder: Path, figures: list[Figure]
) -> None:
    """All queries are items of the index, so each is its own nearest item, at distance 0."""
    draw_figure_4(opened, open_dataset(colour_folder).part("all"), Path("unused.png"))
    (_, right) = figures[0].subfigs
    titles = [axes.get_title() for axes in right.axes]
    assert len(titles) == NUM_QUERIES * (NUM_NEIGHBOURS + 1)
    for first in range(0, len(titles), NUM_NEIGHBOURS + 1):
        query, *neighbours = titles[first : first + NUM_NEIGHBOURS + 1]
        assert query in COLOURS
        distances = [float(title.split()[-1]) for title in neighbours]
        assert distances == sorted(distances)
        assert distances[0] > 0


def test_figure_4_leaves_out_images_that_cannot_be_read(
    opened: OpenIndex, colour_folder: Path, figures: list[Figure]
) -> None:
    readable = open_dataset(colour_folder).part("all")[:2]
    broken = [Example(f"{number}.png", "broken", b"no image") for number in range(5)]
    draw_figure_4(opened, [*broken, *readable], Path("unused.png"))
    (_, right) = figures[0].subfigs
    shown = [axes.get_title() for axes in right.axes[:: NUM_NEIGHBOURS + 1] if axes.get_title()]
    assert shown == ["blue", "blue"]


@pytest.mark.parametrize("label", [r"a $\frac$ b", "$", "x" * 500 + "\x1b[31m"])
def test_figure_4_is_drawn_with_any_label(
    label: str, opened: OpenIndex, colour_folder: Path, tmp_path: Path
) -> None:
    examples = open_dataset(colour_folder).part("all")
    named = [replace(example, label=label) for example in examples]
    draw_figure_4(opened, named, tmp_path / "figure-4.png")
    with Image.open(tmp_path / "figure-4.png") as image:
        assert image.format == "PNG"
