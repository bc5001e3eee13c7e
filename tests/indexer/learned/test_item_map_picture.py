"""The picture of an item map, read from matplotlib's figure: colours, dots and names."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from indexer.array_types import Floats, Rows
from indexer.learned.item_map_picture import (
    MAX_COLOURS,
    MAX_NAME_LENGTH,
    NO_LABEL,
    OTHERS_COLOUR,
    draw_map,
    write_map_picture,
)

ODD_NAMES = ["_hidden", "$a_{$", "two\nlines", "猫", "x" * 500]


def grid(num_items: int) -> Floats:
    """Points (n, 2) in the unit square, no two of them the same."""
    side = int(np.ceil(num_items**0.5))
    positions = np.arange(num_items)
    return (np.stack([positions % side, positions // side], 1) / side).astype(np.float32)


def dots_by_colour(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points that the figure shows, by the colour of their dots."""
    (axes,) = figure.axes
    dots = [dots for dots in axes.collections if isinstance(dots, PathCollection)]
    colours = [np.asarray(group.get_facecolor()).tolist()[0] for group in dots]
    return {
        to_hex(colour): [(x, y) for x, y in np.asarray(group.get_offsets())]
        for colour, group in zip(colours, dots, strict=True)
    }


def names_in(figure: Figure) -> list[str]:
    """The legend's names, from top to bottom."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_each_label_has_a_colour_of_its_own_and_all_its_items_have_that_colour() -> None:
    points, numbers = grid(50), np.arange(50) % 5
    figure = draw_map(points, numbers, ["a", "b", "c", "d", "e"])
    dots = dots_by_colour(figure)
    assert len(dots) == 5
    for number, group in enumerate(dots.values()):
        assert group == [(x, y) for x, y in points[numbers == number]]
    assert names_in(figure) == [" a", " b", " c", " d", " e"]


def test_the_picture_has_a_colour_for_each_of_many_labels_whatever_their_names() -> None:
    names = [*ODD_NAMES, *(f"label {number}" for number in range(15))]
    figure = draw_map(grid(60), np.arange(60) % MAX_COLOURS, names)
    dots = dots_by_colour(figure)
    assert len(dots) == len(names) == MAX_COLOURS
    assert [len(group) for group in dots.values()] == [3] * MAX_COLOURS
    shown = names_in(figure)
    assert shown[:4] == [" _hidden", " $a_{$", r" two\nlines", " 猫"]
    assert shown[4] == " " + "x" * MAX_NAME_LENGTH
    assert shown[5:] == [f" label {number}" for number in range(15)]
    (legend,) = figure.legends
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_rare_labels_and_items_without_a_label_are_grey() -> None:
    """Twenty labels of two items each, one label of one item, and an item without a label."""
    numbers = np.array([*range(1, 21), *range(1, 21), 0, NO_LABEL])
    labels = ["rare", *(f"label {number}" for number in range(1, 21))]
    points = grid(42)
    figure = draw_map(points, numbers, labels)
    dots = dots_by_colour(figure)
    grey = dots.pop(to_hex(OTHERS_COLOUR))
    assert grey == [(x, y) for x, y in points[-2:]]
    assert len(dots) == MAX_COLOURS
    assert names_in(figure) == [" others", *(f" {label}" for label in labels[1:])]


def test_without_labels_there_is_no_legend() -> None:
    figure = draw_map(grid(9), np.full(9, NO_LABEL), [])
    assert len(dots_by_colour(figure)[to_hex(OTHERS_COLOUR)]) == 9
    assert not figure.legends


def test_y_runs_downwards_and_both_axes_have_the_same_scale() -> None:
    (axes,) = draw_map(grid(9), np.zeros(9, np.int64), ["a"]).axes
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert axes.get_aspect() == 1
    assert not axes.axison


@pytest.mark.parametrize("names", [ODD_NAMES, []])
def test_the_picture_is_a_png(names: list[str], tmp_path: Path) -> None:
    numbers: Rows = np.arange(20) % len(names) if names else np.full(20, NO_LABEL)
    write_map_picture(grid(20), numbers, names, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
        image.load()
