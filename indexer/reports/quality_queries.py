"""The queries for measuring an index: images of a data set, or a sample of the index's items."""

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
"""Maximum number of queries that are items of the index."""
MIN_BLOCK_QUERIES = 1024
"""Minimum number of images in a block of queries. Only the last block may be smaller."""
NO_ROW = -1


@dataclass(frozen=True)
class QueryBlock:
    """Queries with their labels."""

    features: Floats
    """(B, 4096)."""
    labels: list[str | None]
    own_rows: Rows
    """(B,). The rows of the queries in the index. If the queries are not items, all are NO_ROW."""

    @property
    def are_items(self) -> bool:
        """Whether the queries are items of the index."""
        return bool((self.own_rows != NO_ROW).all())


def own_items(index: Index) -> QueryBlock:
    """A sample of at most NUM_OWN_QUERIES items of the index. The sample is always the same."""
    positions = np.random.default_rng(0).permutation(len(index.ids))[:NUM_OWN_QUERIES]
    positions.sort()
    ids, rows = index.ids[positions].tolist(), index.rows[positions]
    items = index.items_of(ids)
    return QueryBlock(index.features[rows], [items[id].label for id in ids], rows)


def embedded_examples(
    examples: Sequence[Example], embedder: Embedder, unreadable: list[str]
) -> Iterator[QueryBlock]:
    """Embed the readable examples in order. Yield blocks of them.

    The path of each unreadable example is appended to `unreadable`, with the reason.
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
