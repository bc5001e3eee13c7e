"""The map of the items: similar items lie close together in two dimensions.

The layout is computed by t-SNE (van der Maaten and Hinton 2008). The features are first scaled to
length 1, so that their Euclidean distances have the same order as the cosine distances. Then PCA
reduces each feature to 50 numbers, as the authors of t-SNE do. Making a map needs scikit-learn and
matplotlib, which are in the `full` extra. Reading a map needs only NumPy.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Floats, Rows
from indexer.learned.item_map_picture import NO_LABEL, write_map_picture
from indexer.metrics import unit
from indexer.storage.artefact_reading import read_artefact
from indexer.storage.index import Index
from indexer.storage.manifest import MAP, MAP_PICTURE, Artefact, IndexDirectoryError
from indexer.storage.writer import IndexWriter
from training.errors import UserError
from training.naming import natural_key
from training.progress import console

MIN_MAPPED_ITEMS = 5
MAX_MAPPED_ITEMS = 20_000
"""Maximum number of items on a map. A larger index is sampled."""
NUM_COMPONENTS = 50
PERPLEXITY = 30.0
SEED = 0
NUM_DIGITS = 4
"""Number of decimal digits of a coordinate. A ten-thousandth of the map is less than a pixel."""

Spot = tuple[int, float, float, int | None]
"""An item on the map: id, x, y, and the position of its label in the map's labels. x and y are from
0 to 1, and y points downwards as on a screen. The position is None if the item has no label."""


@dataclass(frozen=True, kw_only=True)
class MapFacts:
    """The facts about a map. The manifest contains them."""

    commit: int
    """Commit of the index when the map was made."""
    num_items: int
    """Number of items in the index at that commit."""
    num_shown: int
    """Number of items on the map. The map shows all items or a sample."""


@dataclass(frozen=True)
class Map:
    """The positions of items. `labels` are the labels of these items, in natural order."""

    facts: MapFacts
    labels: list[str]
    spots: list[Spot]

    @classmethod
    def load(cls, index: Index) -> "Map | None":
        """Read the index's map. Return None if the index has no map.

        Items that were removed after the map was made are left out. Raises IndexDirectoryError for
        a damaged map.
        """
        artefact = index.manifest.artefacts.get(MAP)
        if artefact is None:
            return None
        content = _read(index.directory, artefact)
        is_present = np.isin([spot[0] for spot in content["items"]], index.ids)
        spots = list(compress(content["items"], is_present))
        labels: list[str] = content["labels"]
        numbers = {number for *_, number in spots if number is not None}
        ordered = sorted(numbers, key=lambda number: natural_key(labels[number]))
        new_numbers: dict[int | None, int | None] = {None: None}
        new_numbers.update((number, position) for position, number in enumerate(ordered))
        return cls(
            MapFacts(**artefact.facts),
            [labels[number] for number in ordered],
            [(id, x, y, new_numbers[number]) for id, x, y, number in spots],
        )


def make_map(directory: Path, *, max_items: int = MAX_MAPPED_ITEMS) -> tuple[MapFacts, list[Path]]:
    """Make a map of the items, and replace the earlier map; raises UserError.

    If the index has more than `max_items` items, the map shows a sample of them. Returns the facts
    of the map and its two files: a picture, and a JSON file with the same map.
    """
    if not MIN_MAPPED_ITEMS <= max_items <= MAX_MAPPED_ITEMS:
        raise UserError(
            f"--items must be a number from {MIN_MAPPED_ITEMS} to {MAX_MAPPED_ITEMS:,}, "
            f"got {max_items:,}"
        )
    with IndexWriter.open(directory) as writer:
        index = writer.index
        if len(index.rows) < MIN_MAPPED_ITEMS:
            raise UserError(
                f"a map needs at least {MIN_MAPPED_ITEMS} items but {directory} contains "
                f"{len(index.rows)}; to add more, run: lookalike index add"
            )
        rows = np.sort(np.random.default_rng(SEED).permutation(index.rows)[:max_items])
        with console.status(f"Laying out {len(rows):,} items"):
            points = lay_out(index.features[rows])  # (n, 2)
        labels, numbers = _number_labels([index.text(row)[1] for row in rows])
        facts = MapFacts(
            commit=index.manifest.commit, num_items=len(index.rows), num_shown=len(rows)
        )
        with writer.artefact(MAP_PICTURE, "png", asdict(facts)) as path:
            write_map_picture(points, numbers, labels, path)
        with writer.artefact(MAP, "json", asdict(facts)) as path:
            ids = index.records["id"][rows].tolist()
            content = {"labels": labels, "items": _spots(ids, points, numbers)}
            path.write_text(json.dumps(content, separators=(",", ":")), "utf-8")
        writer.commit()
        artefacts = writer.manifest.artefacts
    return facts, [directory / artefacts[name].file for name in (MAP_PICTURE, MAP)]


def lay_out(features: Floats) -> Floats:
    """Compute the points (n, 2) on the map from features (n, 4096), n >= 5.

    The points go from 0 to 1 along the longer side. They are centred along the shorter side.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    num_items, tiny = len(features), float(np.finfo(np.float32).tiny)
    num_components = min(NUM_COMPONENTS, num_items - 1)
    pca = PCA(num_components, svd_solver="randomized", random_state=SEED, copy=False)
    with warnings.catch_warnings():
        # If all features are equal, PCA divides by a variance of 0.
        warnings.simplefilter("ignore", RuntimeWarning)
        reduced = pca.fit_transform(unit(features))  # (n, components)
    # These initial points are the same as scikit-learn's default. They are computed here, because
    # scikit-learn fails if the points have no spread.
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), tiny) * 1e-4
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (num_items - 1) / 3),
        init=start.astype(np.float32),
        random_state=SEED,
        n_jobs=-1,
    )
    placed = tsne.fit_transform(reduced)  # (n, 2)
    low, high = placed.min(axis=0), placed.max(axis=0)
    longer_side = max(float((high - low).max()), tiny)
    points: Floats = (placed - (low + high) / 2) / longer_side + np.float32(0.5)
    return points


def _number_labels(item_labels: Sequence[str | None]) -> tuple[list[str], Rows]:
    """The labels in natural order, and for each item the position of its label in this list.

    The position is NO_LABEL for an item without a label.
    """
    labels = sorted({label for label in item_labels if label is not None}, key=natural_key)
    numbers: dict[str | None, int] = {label: number for number, label in enumerate(labels)}
    numbers[None] = NO_LABEL
    return labels, np.array([numbers[label] for label in item_labels], np.int64)


def _spots(ids: Sequence[int], points: Floats, numbers: Rows) -> list[Spot]:
    return [
        (id, round(x, NUM_DIGITS), round(y, NUM_DIGITS), None if number == NO_LABEL else number)
        for id, (x, y), number in zip(ids, points.tolist(), numbers.tolist(), strict=True)
    ]


def _read(directory: Path, artefact: Artefact) -> dict[str, Any]:
    remedy = f"to make it again, run: lookalike index map {directory}"
    try:
        content: dict[str, Any] = json.loads(read_artefact(directory, artefact, remedy))
    except ValueError as error:
        file = directory / artefact.file
        raise IndexDirectoryError(f"{file} cannot be read ({error}); {remedy}") from error
    return content
