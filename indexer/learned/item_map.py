"""A map of the items: their features laid out in two dimensions, so that what is alike lies together. Kept in the index.

t-SNE (van der Maaten and Hinton 2008) of the features at length 1, whose distances rank as the cosine does, after PCA to 50 numbers
as its authors do. Making one takes scikit-learn and matplotlib, from the `full` extra; reading it takes NumPy alone.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Floats, Rows
from indexer.metrics import unit
from indexer.storage.artefacts import read_artefact
from indexer.storage.index import Index
from indexer.storage.manifest import Artefact, IndexDirectoryError
from indexer.storage.writer import IndexWriter
from training.errors import UserError
from training.progress import console, one_line

ARTEFACT, PICTURE_ARTEFACT = "map", "mappicture"
MIN_ITEMS, MAX_ITEMS = 5, 20_000
NUM_COMPONENTS, PERPLEXITY, SEED = 50, 30.0, 0
NUM_DIGITS = 4
"""Of a place; a ten-thousandth of the map is less than a pixel."""
MAX_COLOURS = 20
"""Labels that have a colour of their own in the picture: the most frequent ones."""
MAX_NAME = 32

Spot = tuple[int, float, float, int | None]
"""An item's id, x and y, from 0 to 1 and down as on a screen, and the number of its label; None where it has none."""


@dataclass(frozen=True, kw_only=True)
class MapFacts:
    """What a map shows."""

    commit: int
    """The index's, when the map was made."""
    num_items: int
    """Items there were then."""
    num_shown: int
    """How many of them are on the map: all, or a sample."""


@dataclass(frozen=True)
class Map:
    """Where the items lie; `labels` are those that a spot's number counts in."""

    facts: MapFacts
    labels: list[str]
    spots: list[Spot]

    @classmethod
    def load(cls, index: Index) -> "Map | None":
        """The map that the index keeps, without what has been removed since; None where it has none.

        Raises IndexDirectoryError for a damaged one.
        """
        artefact = index.manifest.artefacts.get(ARTEFACT)
        if artefact is None:
            return None
        content = _read(index.directory, artefact)
        is_there = np.isin([spot[0] for spot in content["items"]], index.ids)
        spots = [spot for spot, there in zip(content["items"], is_there, strict=True) if there]
        numbers = sorted({number for *_, number in spots if number is not None})
        renumbered: dict[int | None, int | None] = {
            number: place for place, number in enumerate(numbers)
        } | {None: None}
        return cls(
            MapFacts(**artefact.facts),
            [content["labels"][number] for number in numbers],
            [(id, x, y, renumbered[number]) for id, x, y, number in spots],
        )


def make(directory: Path, *, max_items: int = MAX_ITEMS) -> tuple[MapFacts, list[Path]]:
    """Lays the items out, or a sample of `max_items`, and keeps the map in the index, in place of an earlier one.

    What it shows, and its files: a picture, and a JSON of the same. The same for the same items. Raises UserError.
    """
    if not MIN_ITEMS <= max_items <= MAX_ITEMS:
        raise UserError(
            f"a map has {MIN_ITEMS} to {MAX_ITEMS:,} items but --items says {max_items:,}; pass another number"
        )
    with IndexWriter.open(directory) as writer:
        index = writer.index
        if len(index.rows) < MIN_ITEMS:
            raise UserError(
                f"a map needs {MIN_ITEMS} items but {directory} has {len(index.rows)}; add more: lookalike index add"
            )
        rows = _sample(index.rows, max_items)
        with console.status(f"Laying {len(rows):,} items out"):
            places = lay_out(index.features[rows])
        labels, spots = _spots(index, rows, places)
        facts = MapFacts(
            commit=index.manifest.commit, num_items=len(index.rows), num_shown=len(rows)
        )
        with writer.artefact(PICTURE_ARTEFACT, "png", asdict(facts)) as path:
            _draw(labels, spots, path)
        with writer.artefact(ARTEFACT, "json", asdict(facts)) as path:
            path.write_text(
                json.dumps({"labels": labels, "items": spots}, separators=(",", ":")), "utf-8"
            )
        writer.commit()
        artefacts = writer.manifest.artefacts
    return facts, [directory / artefacts[name].file for name in (PICTURE_ARTEFACT, ARTEFACT)]


def lay_out(features: Floats) -> Floats:
    """Features (n, 4096), five or more, -> places (n, 2): 0 to 1 along the longer side, the shorter one in the middle."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    num_items, tiny = len(features), float(np.finfo(np.float32).tiny)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # where all features are the same, it divides by their variance
        pca = PCA(
            min(NUM_COMPONENTS, num_items - 1),
            svd_solver="randomized",
            random_state=SEED,
            copy=False,
        )
        reduced = pca.fit_transform(unit(features))
    # t-SNE's own start, but that a spread of 0 is no reason to fail.
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), tiny) * 1e-4
    placed = TSNE(
        perplexity=min(PERPLEXITY, (num_items - 1) / 3),
        init=start.astype(np.float32),
        random_state=SEED,
        n_jobs=-1,
    ).fit_transform(reduced)
    low, high = placed.min(axis=0), placed.max(axis=0)
    places: Floats = (placed - (low + high) / 2) / max(
        float((high - low).max()), tiny
    ) + np.float32(0.5)
    return places


def _sample(rows: Rows, count: int) -> Rows:
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:count])


def _spots(index: Index, rows: Rows, places: Floats) -> tuple[list[str], list[Spot]]:
    """The labels on the map, alphabetically, and where its items lie."""
    of_items = [index.text(row)[1] for row in rows]
    labels = sorted({label for label in of_items if label is not None})
    numbers: dict[str | None, int | None] = {
        label: number for number, label in enumerate(labels)
    } | {None: None}
    ids = index.records["id"][rows].tolist()
    spots = [
        (id, round(x, NUM_DIGITS), round(y, NUM_DIGITS), numbers[label])
        for id, (x, y), label in zip(ids, places.tolist(), of_items, strict=True)
    ]
    return labels, spots


def _draw(labels: Sequence[str], spots: Sequence[Spot], file: Path) -> None:
    """A dot an item, coloured by label, as PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    x, y = np.array([spot[1:3] for spot in spots]).T
    numbers = np.array([-1 if spot[3] is None else spot[3] for spot in spots])
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    palette = [
        *palette[::2],
        *palette[1::2],
    ]  # every other one is a pale twin of the one before: the strong ones first
    size = float(np.clip(20_000 / len(spots), 3, 40))
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    frequent = _most_frequent(numbers)
    is_other = ~np.isin(numbers, frequent)
    # Names begin with a space: one that begins with _ would be left out of the legend.
    if is_other.any():
        axes.scatter(
            x[is_other],
            y[is_other],
            s=size,
            color="0.75",
            linewidths=0,
            label=" others" if frequent else None,
        )
    for number, colour in zip(frequent, palette, strict=False):
        name = f" {one_line(labels[number])[:MAX_NAME]}"
        is_of_it = numbers == number
        axes.scatter(x[is_of_it], y[is_of_it], s=size, color=[colour], linewidths=0, label=name)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    if frequent:
        legend = figure.legend(
            loc="outside right upper", frameon=False, markerscale=(60 / size) ** 0.5
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # its font has no letters of some scripts, and draws boxes
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")


def _most_frequent(numbers: Rows) -> list[int]:
    found, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    return sorted(found[np.argsort(-counts, kind="stable")][:MAX_COLOURS].tolist())


def _read(directory: Path, artefact: Artefact) -> dict[str, Any]:
    remedy = f"make it again: lookalike index map {directory}"
    try:
        content: dict[str, Any] = json.loads(read_artefact(directory, artefact, remedy))
    except ValueError as error:
        raise IndexDirectoryError(
            f"{directory / artefact.file} cannot be read ({error}); {remedy}"
        ) from error
    return content
