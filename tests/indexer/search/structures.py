"""An index of made-up items, changes to it, and how much of an exact search a structure finds."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from indexer.array_types import Floats
from indexer.metrics import Metric
from indexer.search.kinds import RequestedKind, SearchKind
from indexer.search.searcher import Match, Searcher
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from tests.indexer.items import made_up_item

BUILT_KINDS: tuple[SearchKind, ...] = ("ivf", "ivf-fp16", "ivf-sq8", "hnsw-fp16", "hnsw-sq8")
NUM_ITEMS = 600


def clustered_features(count: int, seed: int = 0) -> Floats:
    """Features (count, 4096) like fc7's: in clusters, not negative, half of the numbers zero."""
    centres = np.random.default_rng(99).normal(0, 2, (20, 4096))
    random = np.random.default_rng(seed)
    centre_numbers = random.integers(0, len(centres), count)
    vectors = centres[centre_numbers] + random.normal(0, 1.5, (count, 4096))
    return np.maximum(vectors, 0).astype(np.float32)


def add_items(directory: Path, features: Iterable[Floats], first: int) -> list[int]:
    """Add one item per feature, numbered from `first`; update the structures; return the ids."""
    with IndexWriter.open(directory) as writer:
        ids = [
            writer.add(made_up_item(number, feature))
            for number, feature in enumerate(features, first)
        ]
        update_search(writer)
        writer.commit()
    return ids


def remove_items(directory: Path, ids: Iterable[int]) -> None:
    """Remove items, and leave the structures as they are."""
    with IndexWriter.open(directory) as writer:
        writer.remove(ids)
        writer.commit()


def set_kind(directory: Path, kind: RequestedKind | None, memory_bytes: int | None = None) -> None:
    """Update the structures for a requested kind and memory."""
    with IndexWriter.open(directory) as writer:
        update_search(writer, kind=kind, memory_bytes=memory_bytes)
        writer.commit()


def ids_of(matches: Iterable[Match]) -> list[int]:
    """The ids of matches, in their order."""
    return [match.item.id for match in matches]


def share_found(index: Index, queries: Floats, metric: Metric) -> float:
    """The share of the 10 nearest items by exact search that the index's own search finds."""
    searcher = Searcher(index)
    answers = searcher.search(queries, 10, metric=metric)
    exact_answers = searcher.search(queries, 10, metric=metric, exact=True)
    shares = [
        len({*ids_of(matches)} & {*ids_of(exact_matches)}) / 10
        for matches, exact_matches in zip(answers, exact_answers, strict=True)
    ]
    return float(np.mean(shares))
