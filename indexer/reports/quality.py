"""`lookalike index quality`: search an index for many queries, and measure the answers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.array_types import Doubles, Rows
from indexer.metrics import DEFAULT_RERANK, METRICS, Metric, QueryMetric
from indexer.opening import open_index
from indexer.reports.quality_queries import (
    NUM_OWN_QUERIES,
    QueryBlock,
    embedded_examples,
    own_items,
)
from indexer.reports.ranking import (
    average_precisions,
    code_average_precisions,
    exact_neighbours,
    mean_of,
    recall_at_k,
)
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from training.data.datasets import open_dataset
from training.data.examples import DataError
from training.devices import Device
from training.errors import UserError
from training.progress import Bar

LABEL_BLOCK_ITEMS = 1024
"""Number of items in a block. The labels of one block are read at a time."""
NO_LABEL = -1


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of the matches by one metric.

    All measures are shares from 0 to 1. A measure is None if it cannot be computed for any query.
    """

    metric: QueryMetric
    rerank: int | None
    """For hamming, the number of nearest codes that were ranked again, or 0. Otherwise None."""
    recall_at_k: float | None
    """The share of the k nearest items that a search returns. For hamming, these are the k nearest
    items by Euclidean distance."""
    precision_at_k: float | None
    mean_average_precision: float | None
    """It measures the ranking of all items. It is None if items are ranked again (see `rerank`),
    because this changes only the beginning of the ranking."""


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """The quality of an index at one commit, and facts about the queries."""

    index: str
    model: str
    commit: int
    kind: str
    num_items: int
    k: int
    queries: str | None
    """The data set of the queries. It is None if the queries are items of the index. In this case,
    each query is left out of its own matches and its own ranking."""
    num_queries: int
    num_skipped: int
    """Number of queries that could not be read."""
    num_unlabelled: int
    """Number of queries without a label. They are used only for recall."""
    num_unanswerable: int
    """Number of queries with a label that no other item has. They are used only for recall."""
    results: list[Quality]

    @property
    def feature_precisions(self) -> dict[Metric, float | None]:
        """The precision at k of each distance between features."""
        rows = zip(METRICS, self.results, strict=False)  # codes come after METRICS
        return {metric: row.precision_at_k for metric, row in rows}


def measure(
    directory: Path, *, data: str | None = None, k: int = 10, device: Device = "cpu"
) -> QualityReport:
    """Measure the quality of an index for every metric; raises UserError.

    The queries are the images of `data`. By default, they are a sample of the index's items. The
    sample is always the same. The index is searched on `device`. The memory use does not depend on
    the number of queries. It grows by a few bytes per item of the index.
    """
    examples = open_dataset(data).part("all") if data else ()
    opened = open_index(directory, device=device, precision="float32")
    index = opened.index
    if not len(index.ids):
        raise UserError(
            f"{directory} contains no items; "
            f"to add items, run: lookalike index build DATA --model MODEL --out {directory}"
        )
    unreadable: list[str] = []
    if data:
        blocks = embedded_examples(examples, opened.embedder, unreadable)
        num_queries = len(examples)
    else:
        blocks = iter([own_items(index)])
        num_queries = min(len(index.ids), NUM_OWN_QUERIES)
    judge = _Judge(opened.searcher, k)
    with Bar("Measuring", num_queries * len(_search_modes(index)), "answers") as bar:
        for block in blocks:
            judge.add(block, bar)
    if not judge.num_queries:
        raise _no_queries(data, unreadable)
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
class _SearchMode:
    """One way to search the index."""

    metric: QueryMetric
    rerank: int = 0

    @property
    def true_metric(self) -> Metric:
        """The metric that defines the true neighbours. For codes, it is Euclidean."""
        return "euclidean" if self.metric == "hamming" else self.metric


class _Tally:
    """The measurements of one search mode, for all blocks of queries so far."""

    def __init__(self) -> None:
        self.recalls: list[Doubles] = []
        """One array per block of queries."""
        self.average_precisions: list[Doubles] = []
        """One array per block of queries."""
        self.num_hits = 0
        """Number of matches with their query's label."""
        self.num_judged = 0
        """Number of matches of all queries whose label some other item has."""


class _Judge:
    """Searches for blocks of queries in every search mode, and collects the measurements."""

    def __init__(self, searcher: Searcher, k: int):
        self._searcher, self._index, self._k = searcher, searcher.index, k
        self._numbers = {label: number for number, label in enumerate(self._index.labels())}
        self._row_labels = self._item_labels()
        known = self._row_labels[self._row_labels != NO_LABEL]
        self._label_counts = np.bincount(known, minlength=len(self._numbers) + 1)
        self._tallies = {mode: _Tally() for mode in _search_modes(searcher.index)}
        self.num_queries = self.num_unlabelled = self.num_unanswerable = 0

    def add(self, block: QueryBlock, bar: Bar) -> None:
        """Search for a block of queries in every search mode, and add the measurements."""
        index = self._index
        labels = self._numbered(block.labels)
        exact = {metric: self._exact(block, metric) for metric in METRICS}
        is_answerable = self._is_answerable(labels, block)
        for mode, tally in self._tallies.items():
            matches = self._matches(block, mode)
            metric = mode.true_metric
            recalls = recall_at_k(matches, exact[metric], block.features, index.features, metric)
            tally.recalls.append(recalls)
            if not mode.rerank:
                tally.average_precisions.append(self._average_precisions(block, labels, mode))
            judged = itertools.compress(zip(matches, labels, strict=True), is_answerable)
            for rows, label in judged:
                row_labels = self._row_labels[np.searchsorted(index.rows, rows)]
                tally.num_hits += int(np.count_nonzero(row_labels == label))
                tally.num_judged += len(rows)
            bar.advance(len(labels))
        self.num_queries += len(labels)
        self.num_unlabelled += int(np.count_nonzero(labels == NO_LABEL))
        self.num_unanswerable += int(np.count_nonzero(~is_answerable & (labels != NO_LABEL)))

    def results(self) -> list[Quality]:
        """The quality of the matches of all queries so far, one `Quality` per search mode."""
        return [
            Quality(
                metric=mode.metric,
                rerank=mode.rerank if mode.metric == "hamming" else None,
                recall_at_k=_mean(tally.recalls),
                precision_at_k=tally.num_hits / tally.num_judged if tally.num_judged else None,
                mean_average_precision=_mean(tally.average_precisions),
            )
            for mode, tally in self._tallies.items()
        ]

    def _is_answerable(self, labels: Rows, block: QueryBlock) -> npt.NDArray[np.bool_]:
        """A mask (B,) of the queries whose label some other item has."""
        has_others = self._label_counts[labels] > block.are_items
        is_answerable: npt.NDArray[np.bool_] = has_others & (labels != NO_LABEL)
        return is_answerable

    def _average_precisions(self, block: QueryBlock, labels: Rows, mode: _SearchMode) -> Doubles:
        """The average precision of each query, (B,)."""
        index, row_labels, own_rows = self._index, self._row_labels, block.own_rows
        if mode.metric == "hamming":
            code_search = self._searcher.code_search
            queries = code_search.encoder.encode(block.features)
            codes = code_search.item_codes
            return code_average_precisions(
                queries, labels, codes, index.rows, row_labels, own_rows=own_rows
            )
        return average_precisions(
            block.features,
            labels,
            index.features,
            index.rows,
            row_labels,
            mode.metric,
            own_rows=own_rows,
        )

    def _exact(self, block: QueryBlock, metric: Metric) -> tuple[Doubles, Rows]:
        """The distances and rows of the true neighbours, (B, min(k, n)) each.

        A query is not one of its own neighbours.
        """
        index = self._index
        distances, rows = exact_neighbours(
            block.features, index.features, index.rows, self._k + block.are_items, metric
        )
        num_kept = min(self._k, len(index.rows) - block.are_items)
        is_other = rows != block.own_rows[:, None]
        kept = np.stack([np.flatnonzero(others)[:num_kept] for others in is_other])
        return np.take_along_axis(distances, kept, axis=1), np.take_along_axis(rows, kept, axis=1)

    def _matches(self, block: QueryBlock, mode: _SearchMode) -> list[Rows]:
        """Search for the queries. Return the rows of each query's matches, without the query."""
        answers = self._searcher.search(
            block.features, self._k + block.are_items, metric=mode.metric, rerank=mode.rerank
        )
        rows = [self._index.rows_of_ids(match.item.id for match in matches) for matches in answers]
        return [
            matches[matches != own_row][: self._k]
            for matches, own_row in zip(rows, block.own_rows, strict=True)
        ]

    def _item_labels(self) -> Rows:
        """The label numbers of the items, (num_items,), in the order of the index's rows."""
        labels = np.empty(len(self._index.ids), np.int64)
        for start in range(0, len(labels), LABEL_BLOCK_ITEMS):
            ids = self._index.ids[start : start + LABEL_BLOCK_ITEMS].tolist()
            items = self._index.items_of(ids)
            labels[start : start + len(ids)] = self._numbered([items[id].label for id in ids])
        return labels

    def _numbered(self, labels: Sequence[str | None]) -> Rows:
        """The numbers of labels, (n,).

        None gets NO_LABEL. A label that is not in the index gets an unused number.
        """
        unused = len(self._numbers)
        return np.array(
            [NO_LABEL if label is None else self._numbers.get(label, unused) for label in labels],
            np.int64,
        )


def _no_queries(data: str | None, unreadable: Sequence[str]) -> DataError:
    reason = f": {unreadable[0]}" if unreadable else ""
    return DataError(
        f"{data} has no readable image{reason}; "
        "pass a folder of images, a CSV (path,label) or `digits` as --queries"
    )


def _search_modes(index: Index) -> list[_SearchMode]:
    """One mode per metric between features. With codes, also hamming with and without rerank."""
    modes = [_SearchMode(metric) for metric in METRICS]
    if index.manifest.has_codes:
        modes += [_SearchMode("hamming"), _SearchMode("hamming", DEFAULT_RERANK)]
    return modes


def _mean(blocks: list[Doubles]) -> float | None:
    """The mean of the values that are not NaN. It is None if there are no such values."""
    mean = mean_of(np.concatenate(blocks)) if blocks else float("nan")
    return None if np.isnan(mean) else mean
