"""`lookalike figures`: the paper's figures, drawn from a model, an ablation and an index.

This module draws Figure 4, which shows test images with their likeliest classes, and queries with
their nearest images.
"""

import io
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from PIL import Image

from indexer.answers import embed_images, without_itself
from indexer.embedder import ClassScore
from indexer.opening import OpenIndex, open_index
from indexer.search.searcher import Match
from indexer.storage.index import Index
from training.data.datasets import held_out_examples, open_dataset
from training.data.examples import Example
from training.data.images import ImageError, Pixels, read_square
from training.errors import UserError
from training.experiments.figures import draw_ablation_figure_1, draw_figure_3
from training.plotting import label_text, plt, save_figure

NUM_CLASSES = 5
"""Number of bars per test image, one per class."""
NUM_PREDICTIONS = 8
"""Number of test images in the left half of Figure 4."""
NUM_QUERIES = 5
"""Number of queries in the right half of Figure 4. Each query has a line of its own."""
NUM_NEIGHBOURS = 6
"""Number of nearest images per query."""
RIGHT_COLOUR, OTHER_COLOUR = "#d9534f", "#6c8ebf"


@dataclass(frozen=True)
class _Panel:
    """A test image, with the classes from the model and the matches from the index."""

    example: Example
    square: Pixels
    classes: list[ClassScore]
    matches: list[Match]


def draw_figures(
    model_directory: Path,
    index_directory: Path | None,
    out: Path,
    *,
    data: str | None = None,
    ablation: Path | None = None,
) -> list[Path]:
    """Draw the figures and return their files; raises UserError.

    Figure 3 is always drawn. Figure 4 is drawn if an index is given, and Figure 1 if an ablation is
    given. Figure 4 shows images of `data`. If `data` is None, it shows images that were held out
    when the model was trained.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "figure-3.png"]
    draw_figure_3(model_directory, files[0])
    if ablation is not None:
        files.append(out / "figure-1.png")
        if not draw_ablation_figure_1(ablation, files[-1]):
            raise UserError(
                f"{ablation} contains no run of baseline or tanh; "
                f"to make them, run: lookalike ablate DATA --out {ablation}"
            )
    if index_directory is None:
        return files
    opened = open_index(index_directory, model_directory, precision="float32")
    if data:
        examples = open_dataset(data).part("all")
    else:
        trained_on = opened.embedder.card.data
        examples = held_out_examples(str(trained_on["name"]), trained_on.get("validation"))
    files.append(out / "figure-4.png")
    draw_figure_4(opened, examples, files[-1])
    return files


def draw_figure_4(
    opened: OpenIndex, examples: Sequence[Example], file: Path, *, seed: int = 0
) -> None:
    """Draw Figure 4 as PNG.

    The images are random, from as many different classes as possible. A query is not shown among
    its own matches.
    """
    image_size = opened.embedder.card.image_size
    chosen = _choose(examples, NUM_PREDICTIONS + NUM_QUERIES, seed, image_size)
    panels = _answer(opened, chosen)
    figure = plt.figure(figsize=(18, 8.5), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1, 1.25), wspace=0.03)
    left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    left.suptitle("The five likeliest classes, with the right one in red")
    right.suptitle("A query and its six nearest images by the last hidden layer")
    _draw_predictions(left, panels[:NUM_PREDICTIONS])
    _draw_neighbours(right, panels[-NUM_QUERIES:], opened.index)
    save_figure(figure, file)


def _choose(examples: Sequence[Example], count: int, seed: int, image_size: int) -> list[Example]:
    """Choose random readable images with as many different labels as possible."""
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    num_before: dict[str | None, int] = defaultdict(int)
    ordered = []
    for example in shuffled:
        ordered.append((num_before[example.label], example))
        num_before[example.label] += 1
    ordered.sort(key=lambda pair: pair[0])
    readable = (example for _, example in ordered if _is_readable(example, image_size))
    return list(islice(readable, count))


def _is_readable(example: Example, image_size: int) -> bool:
    try:
        read_square(example.source, image_size)
    except ImageError:
        return False
    return True


def _answer(opened: OpenIndex, examples: Sequence[Example]) -> list[_Panel]:
    """Classify the images and search for them."""
    panels = []
    for batch in embed_images([example.source for example in examples], opened.embedder):
        classes = opened.classifier().scores(batch.embedding, NUM_CLASSES)
        matches = opened.searcher.search(batch.embedding.features, NUM_NEIGHBOURS + 1)
        for row, position in enumerate(batch.positions):
            example = examples[position]
            others = without_itself(matches[row], example, NUM_NEIGHBOURS)
            panels.append(_Panel(example, batch.squares[row], classes[row], others))
    return panels


def _draw_predictions(figure: SubFigure, panels: Sequence[_Panel]) -> None:
    grid = figure.subplots(4, 4, height_ratios=(1.6, 1, 1.6, 1))
    for axes in grid.flat:
        axes.axis("off")
    for number, panel in enumerate(panels):
        row, column = divmod(number, 4)
        _show(grid[2 * row, column], panel.square, label_text(panel.example.label))
        _draw_bars(grid[2 * row + 1, column], panel)


def _draw_bars(axes: Axes, panel: _Panel) -> None:
    axes.axis("on")
    for position, score in enumerate(panel.classes):
        colour = RIGHT_COLOUR if score.name == panel.example.label else OTHER_COLOUR
        axes.barh(position, score.probability, color=colour, alpha=0.75)
        text = f"{label_text(score.name)}  {score.probability:.0%}"
        axes.text(0.02, position, text, va="center", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(4.5, -0.5), xticks=[], yticks=[])


def _draw_neighbours(figure: SubFigure, panels: Sequence[_Panel], index: Index) -> None:
    grid = figure.subplots(NUM_QUERIES, NUM_NEIGHBOURS + 1, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, panel in zip(grid, panels, strict=False):
        _show(row[0], panel.square, label_text(panel.example.label or "-"), weight="bold")
        for axes, match in zip(row[1:], panel.matches, strict=False):
            thumbnail = index.thumbnail(match.item.id)
            assert thumbnail is not None
            with Image.open(io.BytesIO(thumbnail)) as image:
                pixels = np.asarray(image)
            colour = "black" if match.label == panel.example.label else RIGHT_COLOUR
            title = f"{label_text(match.label or '-')}  {match.distance:.1f}"
            _show(axes, pixels, title, colour=colour)


def _show(
    axes: Axes, pixels: Pixels, title: str, *, weight: str = "normal", colour: str = "black"
) -> None:
    axes.imshow(pixels)
    axes.set_title(title, fontsize=8, weight=weight, color=colour)
