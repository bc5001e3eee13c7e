"""The queries that measure an index: images of a data set, or a sample of the index's own items."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.answers import embed_images
from indexer.array_types import Floats, Rows
from indexer.embedder import Embedder
from indexer.storage.index import Index
from training.data.examples import Example
from training.data.images import ImageError

NUM_OWN_QUERIES = 1000
"""Maximum number of an index's own items that are queries."""
MIN_BLOCK_QUERIES = 1024
"""Number of embedded images that are gathered before they are searched for together."""
NO_ROW = -1


@dataclass(frozen=True)
class QueryBlock:
    """Queries with their labels."""

    features: Floats
    """(B, 4096)."""
    labels: list[str | None]
    own_rows: Rows
    """(B,) rows of the queries if they are items of the index, otherwise NO_ROW for each."""

    @property
    def are_items(self) -> bool:
        """Whether the queries are items of the index."""
        return bool((self.own_rows != NO_ROW).all())


def own_items(index: Index) -> QueryBlock:
    """Up to NUM_OWN_QUERIES items of the index, always the same ones."""
    positions = np.random.default_rng(0).permutation(len(index.ids))[:NUM_OWN_QUERIES]
    positions.sort()
    ids, rows = index.ids[positions].tolist(), index.rows[positions]
    items = index.items_of(ids)
    return QueryBlock(index.features[rows], [items[id].label for id in ids], rows)


def embedded_examples(
    examples: Sequence[Example], embedder: Embedder, unreadable: list[str]
) -> Iterator[QueryBlock]:
    """The readable examples in order, in blocks.

    The path of each other example is appended to `unreadable`, with the reason.
    """

    def skip(position: int, error: ImageError) -> None:
        unreadable.append(f"{examples[position].path}: {error}")

    features: list[Floats] = []
    labels: list[str | None] = []
    sources = [example.source for example in examples]
    for batch in embed_images(sources, embedder, skip_unreadable=skip):
        features.append(batch.embedding.features)
        labels.extend(examples[position].label for position in batch.positions)
        if len(labels) >= MIN_BLOCK_QUERIES:
            yield QueryBlock(np.concatenate(features), labels, np.full(len(labels), NO_ROW))
            features, labels = [], []
    if labels:
        yield QueryBlock(np.concatenate(features), labels, np.full(len(labels), NO_ROW))
