"""`lookalike index quality`: an index is asked many images, and its answers are judged."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.answers import BATCH_SIZE
from indexer.array_types import Doubles, Floats, Rows
from indexer.embedder import Embedder
from indexer.metrics import DEFAULT_RERANK, METRICS, Metric, QueryMetric
from indexer.opening import open_for_queries
from indexer.reports.ranking import (
    QUERY_BLOCK,
    average_precisions,
    code_average_precisions,
    exact_neighbours,
    mean_of,
    recall_at_k,
)
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from training.data.datasets import open_dataset
from training.data.examples import DataError, Example
from training.data.images import ImageError, Pixels, read_square
from training.devices import Device
from training.errors import UserError
from training.parallel import map_ahead, num_cores
from training.progress import Bar

NUM_OWN_QUERIES = 1000
"""How many of an index's own items ask, where no others do."""
NO_ROW, NO_LABEL = -1, -1


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good the look-alikes by one distance are: figures from 0 to 1, None where no query could tell."""

    metric: QueryMetric
    rerank: int | None
    """By hamming: how many of the nearest by code were ranked by Euclidean distance; 0: none."""
    recall_at_k: float | None
    """By hamming, of the nearest by Euclidean distance."""
    precision_at_k: float | None
    mean_average_precision: float | None
    """None too for codes that are reranked: it is over the whole ranking, which is that of the codes alone."""


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """What was measured, of which commit, and with which queries."""

    index: str
    model: str
    commit: int
    kind: str
    num_items: int
    k: int
    queries: str | None
    """The data set that asked; None where the index's own items did, each left out of its own answers and ranking."""
    num_queries: int
    num_skipped: int
    """Queries that could not be read."""
    num_unlabelled: int
    """Queries without a label: they count for recall only."""
    num_unanswerable: int
    """Queries with a label that no item has, but for the query itself: they count for recall only."""
    results: list[Quality]


@dataclass(frozen=True)
class _Block:
    """Queries: features (B, 4096), labels, and the rows (B,) of those that are items, or NO_ROW of each where none is."""

    features: Floats
    labels: list[str | None]
    own_rows: Rows

    @property
    def asks_itself(self) -> bool:
        return bool((self.own_rows != NO_ROW).all())


def measure(
    directory: Path, *, data: str | None = None, k: int = 10, device: Device = "cpu"
) -> QualityReport:
    """Asks an index the images of `data`, or else a fixed sample of its own items, by every distance; raises UserError.

    `device` is where the index is searched. Memory does not grow with the number of queries, and by a few bytes an item only.
    """
    examples = open_dataset(data).part("all") if data else ()
    index, embedder, searcher = open_for_queries(directory, device=device)
    if not len(index.ids):
        raise UserError(
            f"{directory} has no items to find; add some with: lookalike index build DATA --model MODEL --out {directory}"
        )
    unreadable: list[str] = []
    blocks = _embedded(examples, embedder, unreadable) if data else iter([_own_items(index)])
    judge = _Judge(searcher, k)
    num_asking = len(examples) if data else min(len(index.ids), NUM_OWN_QUERIES)
    with Bar("Measuring", num_asking * len(_ways_of(index)), "answers") as bar:
        for block in blocks:
            judge.ask(block, bar)
    if not judge.num_queries:
        reason = f": {unreadable[0]}" if unreadable else ""
        raise DataError(
            f"{data} has no readable image{reason}; pass --queries a folder of images, a CSV (path,label), or `digits`"
        )
    return QualityReport(
        index=str(directory),
        model=index.manifest.model_id,
        commit=index.manifest.commit,
        kind=index.manifest.kind,
        num_items=index.manifest.num_items,
        k=k,
        queries=data,
        num_queries=judge.num_queries,
        num_skipped=len(unreadable),
        num_unlabelled=judge.num_unlabelled,
        num_unanswerable=judge.num_unanswerable,
        results=judge.results(),
    )


@dataclass(frozen=True)
class _Way:
    """How the index is asked."""

    metric: QueryMetric
    rerank: int = 0

    @property
    def aim(self) -> Metric:
        """The distance whose nearest are to be found: codes stand for features."""
        return "euclidean" if self.metric == "hamming" else self.metric


class _Tally:
    """The figures of one way to ask so far, an array a block of queries."""

    def __init__(self) -> None:
        self.recalls: list[Doubles] = []
        self.average_precisions: list[Doubles] = []
        self.num_hits = self.num_judged = 0


class _Judge:
    """Asks blocks of queries and adds up how good the answers were."""

    def __init__(self, searcher: Searcher, k: int):
        self._searcher, self._index, self._k = searcher, searcher.index, k
        self._numbers = {label: number for number, label in enumerate(self._index.labels())}
        self._row_labels = self._labels_of_items()
        self._tallies = {way: _Tally() for way in _ways_of(searcher.index)}
        self.num_queries = self.num_unlabelled = self.num_unanswerable = 0

    def ask(self, block: _Block, bar: Bar) -> None:
        labels = self._numbered(block.labels)
        exact = {metric: self._exact(block, metric) for metric in METRICS}
        is_judged = np.zeros(len(labels), bool)
        for way, tally in self._tallies.items():
            found = self._found(block, way)
            tally.recalls.append(
                recall_at_k(found, exact[way.aim], block.features, self._index.features, way.aim)
            )
            if not way.rerank:
                precisions = self._average_precisions(block, labels, way)
                tally.average_precisions.append(precisions)
                is_judged = ~np.isnan(precisions)
            for rows, label in zip(
                itertools.compress(found, is_judged), labels[is_judged], strict=True
            ):
                tally.num_hits += int(
                    np.count_nonzero(
                        self._row_labels[np.searchsorted(self._index.rows, rows)] == label
                    )
                )
                tally.num_judged += len(rows)
            bar.advance(len(labels))
        num_unlabelled = int(np.count_nonzero(labels == NO_LABEL))
        self.num_queries += len(labels)
        self.num_unlabelled += num_unlabelled
        self.num_unanswerable += int(np.count_nonzero(~is_judged)) - num_unlabelled

    def results(self) -> list[Quality]:
        return [
            Quality(
                metric=way.metric,
                rerank=way.rerank if way.metric == "hamming" else None,
                recall_at_k=_mean(tally.recalls),
                precision_at_k=tally.num_hits / tally.num_judged if tally.num_judged else None,
                mean_average_precision=_mean(tally.average_precisions),
            )
            for way, tally in self._tallies.items()
        ]

    def _average_precisions(self, block: _Block, labels: Rows, way: _Way) -> Doubles:
        index = self._index
        if way.metric == "hamming":
            codes = self._searcher.codes
            asking = codes.encoder.encode(block.features)
            return code_average_precisions(
                asking,
                labels,
                codes.of_items,
                index.rows,
                self._row_labels,
                own_rows=block.own_rows,
            )
        return average_precisions(
            block.features,
            labels,
            index.features,
            index.rows,
            self._row_labels,
            way.metric,
            own_rows=block.own_rows,
        )

    def _exact(self, block: _Block, metric: Metric) -> tuple[Doubles, Rows]:
        """Distances and rows of the truly nearest, (B, k) each or fewer, nobody's own among them."""
        distances, rows = exact_neighbours(
            block.features,
            self._index.features,
            self._index.rows,
            self._k + block.asks_itself,
            metric,
        )
        num_kept = min(self._k, len(self._index.rows) - block.asks_itself)
        kept = np.stack(
            [
                np.flatnonzero(found != own)[:num_kept]
                for found, own in zip(rows, block.own_rows, strict=True)
            ]
        )
        return np.take_along_axis(distances, kept, axis=1), np.take_along_axis(rows, kept, axis=1)

    def _found(self, block: _Block, way: _Way) -> list[Rows]:
        """The rows that the index's own search finds for each query, nobody's own among them."""
        answers = self._searcher.search(
            block.features, self._k + block.asks_itself, metric=way.metric, rerank=way.rerank
        )
        rows = [self._index.rows_of_ids(match.item.id for match in matches) for matches in answers]
        return [
            found[found != own][: self._k] for found, own in zip(rows, block.own_rows, strict=True)
        ]

    def _labels_of_items(self) -> Rows:
        """The numbers of the items' labels, parallel to the index's rows, (num_items,)."""
        labels = np.empty(len(self._index.ids), np.int64)
        for start in range(0, len(labels), QUERY_BLOCK):
            ids = [int(id) for id in self._index.ids[start : start + QUERY_BLOCK]]
            items = self._index.items_of(ids)
            labels[start : start + len(ids)] = self._numbered([items[id].label for id in ids])
        return labels

    def _numbered(self, labels: Sequence[str | None]) -> Rows:
        """(n,) numbers: NO_LABEL of None, and one that no item has of a label that none has."""
        unknown = len(self._numbers)
        return np.array(
            [NO_LABEL if label is None else self._numbers.get(label, unknown) for label in labels],
            np.int64,
        )


def _ways_of(index: Index) -> list[_Way]:
    """By each distance between features and, where the index has codes, by these, alone and reranked."""
    ways = [_Way(metric) for metric in METRICS]
    return (
        [*ways, _Way("hamming"), _Way("hamming", DEFAULT_RERANK)]
        if index.manifest.has_codes
        else ways
    )


def _own_items(index: Index) -> _Block:
    """Up to NUM_OWN_QUERIES items, the same ones every time."""
    places = np.random.default_rng(0).permutation(len(index.ids))[:NUM_OWN_QUERIES]
    places.sort()
    ids = [int(id) for id in index.ids[places]]
    items = index.items_of(ids)
    return _Block(
        index.features[index.rows[places]], [items[id].label for id in ids], index.rows[places]
    )


def _embedded(
    examples: Sequence[Example], embedder: Embedder, unreadable: list[str]
) -> Iterator[_Block]:
    """The readable examples, a block after the other; adds why the others are not to `unreadable`."""
    features: list[Floats] = []
    labels: list[str | None] = []
    for batch in _batches(examples, embedder.card.image_size, unreadable):
        features.append(embedder.embed(np.stack([square for _, square in batch])).features)
        labels.extend(example.label for example, _ in batch)
        if len(labels) >= QUERY_BLOCK:
            yield _Block(np.concatenate(features), labels, np.full(len(labels), NO_ROW))
            features, labels = [], []
    if labels:
        yield _Block(np.concatenate(features), labels, np.full(len(labels), NO_ROW))


def _batches(
    examples: Sequence[Example], size: int, unreadable: list[str]
) -> Iterator[list[tuple[Example, Pixels]]]:
    """The readable examples with their squares, BATCH_SIZE at a time."""

    def read(example: Example) -> Pixels | ImageError:
        try:
            return read_square(example.source, size)
        except ImageError as error:
            return error

    batch = []
    with ThreadPoolExecutor(num_cores()) as pool:
        for example, square in zip(
            examples, map_ahead(pool, read, examples, ahead=2 * BATCH_SIZE), strict=True
        ):
            if isinstance(square, ImageError):
                unreadable.append(f"{example.path}: {square}")
                continue
            batch.append((example, square))
            if len(batch) == BATCH_SIZE:
                yield batch
                batch = []
    if batch:
        yield batch


def _mean(parts: list[Doubles]) -> float | None:
    mean = mean_of(np.concatenate(parts)) if parts else float("nan")
    return None if np.isnan(mean) else mean
