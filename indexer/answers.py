"""Images that ask: decoded, embedded, classified and looked up, many at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from indexer.array_types import Floats
from indexer.embedder import Embedder
from indexer.metrics import DEFAULT_RERANK, QueryMetric
from indexer.search.searcher import Match, Searcher
from training.data.examples import Example
from training.data.images import ImageError, Pixels, Source, read_square
from training.parallel import map_ahead, num_cores

BATCH_SIZE = 32


@dataclass(frozen=True)
class Answer:
    """One query: its square, logits (classes,), feature (4096,), and its matches where an index was asked."""

    square: Pixels
    logits: Floats
    feature: Floats
    matches: list[Match]


def answer(
    sources: Sequence[Source],
    embedder: Embedder,
    searcher: Searcher | None = None,
    *,
    k: int = 6,
    metric: QueryMetric = "euclidean",
    label: str | None = None,
    rerank: int = DEFAULT_RERANK,
    flips: int | None = None,
) -> Iterator[Answer]:
    """Answers the queries in order; raises ImageError at the first unreadable one."""
    with ThreadPoolExecutor(num_cores()) as pool:
        squares = map_ahead(
            pool,
            lambda source: _read(source, embedder.card.image_size),
            sources,
            ahead=2 * BATCH_SIZE,
        )
        for start in range(0, len(sources), BATCH_SIZE):
            batch = np.stack([next(squares) for _ in sources[start : start + BATCH_SIZE]])
            embedding = embedder.embed(batch)
            found = (
                partial(searcher.search, metric=metric, label=label, rerank=rerank, flips=flips)
                if searcher
                else None
            )
            matches = found(embedding.features, k) if found else [[] for _ in batch]
            yield from map(Answer, batch, embedding.logits, embedding.features, matches)


def without_itself(matches: Sequence[Match], example: Example, k: int) -> list[Match]:
    """The `k` nearest matches but for the item that is the query itself: ask for k + 1."""
    return [match for match in matches if match.item.path != example.path][:k]


def _read(source: Source, size: int) -> Pixels:
    try:
        return read_square(source, size)
    except ImageError as error:
        raise ImageError(
            error.reason, str(error) if isinstance(source, bytes) else f"{source}: {error}"
        ) from error
