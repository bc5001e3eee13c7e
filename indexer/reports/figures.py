"""The paper's figures from a model and an index; Figure 4 is made here: predictions with bars, queries beside their nearest images."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from PIL import Image

from indexer.answers import answer, without_itself
from indexer.embedder import ClassScore, Embedder, likeliest
from indexer.opening import open_for_queries
from indexer.search.searcher import Match, Searcher
from training.data.datasets import held_out_examples, open_dataset
from training.data.examples import Example
from training.data.images import ImageError, Pixels, read_square
from training.errors import UserError
from training.experiments.figures import draw_figure_3
from training.plotting import save_figure

NUM_PREDICTIONS, NUM_QUERIES, NUM_NEIGHBOURS = 8, 5, 6
RIGHT_COLOUR, OTHER_COLOUR = "#d9534f", "#6c8ebf"


@dataclass(frozen=True)
class _Panel:
    """A test image with what the model and the index say of it."""

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
    """Draws what can be drawn, Figure 3 always, Figure 4 with an index, Figure 1 with an ablation; raises UserError.

    Figure 4's test images are those that `data`, or else the data that the model was trained on, holds out.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "figure-3.png"]
    draw_figure_3(model_directory, files[0])
    if ablation is not None:
        from training.experiments.ablation import (
            draw_ablation_figure_1,
        )  # with torch, which the other figures do without

        files.append(out / "figure-1.png")
        if not draw_ablation_figure_1(ablation, files[-1]):
            raise UserError(
                f"{ablation} has no run of baseline or tanh; make them with: lookalike ablate DATA --out {ablation}"
            )
    if index_directory is None:
        return files
    _, embedder, searcher = open_for_queries(index_directory, model_directory)
    trained_on = embedder.card.data
    held_out = (
        open_dataset(data).part("all")
        if data
        else held_out_examples(str(trained_on["name"]), trained_on.get("validation"))
    )
    files.append(out / "figure-4.png")
    draw_figure_4(embedder, searcher, held_out, files[-1])
    return files


def draw_figure_4(
    embedder: Embedder,
    searcher: Searcher,
    held_out: Sequence[Example],
    file: Path,
    *,
    seed: int = 0,
) -> None:
    """Draws Figure 4 as PNG for images drawn at random, one of each class first; an item that is the query itself is left out."""
    examples = _choose(held_out, NUM_PREDICTIONS + NUM_QUERIES, seed, embedder.card.image_size)
    answers = answer(
        [example.source for example in examples], embedder, searcher, k=NUM_NEIGHBOURS + 1
    )
    panels = [
        _Panel(
            example,
            found.square,
            likeliest(found.logits, embedder.card.class_names),
            without_itself(found.matches, example, NUM_NEIGHBOURS),
        )
        for example, found in zip(examples, answers, strict=True)
    ]
    figure = plt.figure(figsize=(18, 8.5), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1, 1.25), wspace=0.03)
    left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    left.suptitle("The five likeliest classes; the right one in red")
    right.suptitle("A query, and its six nearest images by the last hidden layer")
    _draw_predictions(left, panels[:NUM_PREDICTIONS])
    _draw_neighbours(right, panels[-NUM_QUERIES:], searcher)
    save_figure(figure, file)


def _choose(examples: Sequence[Example], count: int, seed: int, size: int) -> list[Example]:
    """Readable images at random, of as many different labels as there are."""
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    rounds: dict[str | None, int] = {}
    order = []
    for example in shuffled:
        order.append((rounds.get(example.label, 0), example))
        rounds[example.label] = rounds.get(example.label, 0) + 1
    order.sort(key=lambda pair: pair[0])
    return list(islice((example for _, example in order if _is_readable(example, size)), count))


def _is_readable(example: Example, size: int) -> bool:
    try:
        read_square(example.source, size)
    except ImageError:
        return False
    return True


def _draw_predictions(figure: SubFigure, panels: Sequence[_Panel]) -> None:
    grid = figure.subplots(4, 4, height_ratios=(1.6, 1, 1.6, 1))
    for axes in grid.flat:
        axes.axis("off")
    for number, panel in enumerate(panels):
        row, column = divmod(number, 4)
        _show(grid[2 * row, column], panel.square, panel.example.label)
        _bars(grid[2 * row + 1, column], panel)


def _bars(axes: Axes, panel: _Panel) -> None:
    axes.axis("on")
    places = range(len(panel.classes))
    colours = [
        RIGHT_COLOUR if score.name == panel.example.label else OTHER_COLOUR
        for score in panel.classes
    ]
    axes.barh(places, [score.probability for score in panel.classes], color=colours, alpha=0.75)
    for place, score in enumerate(panel.classes):
        axes.text(0.02, place, f"{score.name}  {score.probability:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(4.5, -0.5), xticks=[], yticks=[])


def _draw_neighbours(figure: SubFigure, panels: Sequence[_Panel], searcher: Searcher) -> None:
    grid = figure.subplots(NUM_QUERIES, NUM_NEIGHBOURS + 1, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, panel in zip(grid, panels, strict=False):
        _show(row[0], panel.square, f"{panel.example.label}", weight="bold")
        for axes, match in zip(row[1:], panel.matches, strict=False):
            thumbnail = searcher.index.thumbnail(match.item.id)
            assert thumbnail is not None
            with Image.open(io.BytesIO(thumbnail)) as image:
                colour = "black" if match.item.label == panel.example.label else RIGHT_COLOUR
                _show(
                    axes,
                    np.asarray(image),
                    f"{match.item.label}  {match.distance:.1f}",
                    color=colour,
                )


def _show(
    axes: Axes, pixels: Pixels, title: str | None, *, weight: str = "normal", color: str = "black"
) -> None:
    axes.imshow(pixels)
    axes.set_title(title or "", fontsize=8, weight=weight, color=color)
