"""The picture of an item map: one dot per item, coloured by label.

Drawing needs matplotlib, which is in the `full` extra.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.array_types import Floats, Rows
from training.naming import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_LABEL = -1
"""Label number of an item that has no label."""
MAX_COLOURS = 20
"""Maximum number of labels with their own colour. These are the most frequent labels."""
MAX_NAME_LENGTH = 32
"""Maximum number of characters of a label in the legend."""
OTHERS_COLOUR = "0.75"


def write_map_picture(
    points: Floats, label_numbers: Rows, labels: Sequence[str], file: Path
) -> None:
    """Draw a map and write it as PNG. `draw_map` explains the arguments."""
    figure = draw_map(points, label_numbers, labels)
    with warnings.catch_warnings():
        # matplotlib's font lacks the letters of some scripts, and boxes are drawn instead.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")


def draw_map(points: Floats, label_numbers: Rows, labels: Sequence[str]) -> "Figure":
    """Draw one dot per item at points (n, 2), which are x and y from 0 to 1. y points downwards.

    `label_numbers` (n,) are positions in `labels`, or NO_LABEL. The legend is in the order of
    `labels`.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    tab20 = colormaps["tab20"](np.arange(MAX_COLOURS))
    palette = [*tab20[::2], *tab20[1::2]]  # strong colours first; every second colour is pale
    dot_size = float(np.clip(20_000 / len(points), 3, 40))
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()

    def scatter(is_chosen: npt.NDArray[np.bool_], colour: object, name: str | None) -> None:
        x, y = points[is_chosen].T
        axes.scatter(x, y, s=dot_size, color=colour, linewidths=0, label=name)

    # Each name starts with a space, because matplotlib does not show names that start with _.
    frequent = _most_frequent(label_numbers)
    is_other = ~np.isin(label_numbers, frequent)
    if is_other.any():
        scatter(is_other, OTHERS_COLOUR, " others" if frequent else None)
    for number, colour in zip(frequent, palette, strict=False):
        scatter(label_numbers == number, [colour], f" {one_line(labels[number])[:MAX_NAME_LENGTH]}")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    if frequent:
        marker_scale = (60 / dot_size) ** 0.5
        legend = figure.legend(loc="outside right upper", frameon=False, markerscale=marker_scale)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _most_frequent(label_numbers: Rows) -> list[int]:
    """The numbers of the most frequent labels in ascending order, at most MAX_COLOURS."""
    numbers, counts = np.unique(label_numbers[label_numbers >= 0], return_counts=True)
    most_frequent_first = numbers[np.argsort(-counts, kind="stable")]
    return sorted(most_frequent_first[:MAX_COLOURS].tolist())
