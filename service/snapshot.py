"""A snapshot: one commit of an index with its network, as the service answers from it.

A request uses one snapshot from its beginning to its end. So its answer never mixes two commits,
even if the service goes on to another commit in the meantime.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from indexer.array_types import Floats
from indexer.embedder import Embedder
from indexer.learned.item_map import Map
from indexer.learned.probe import Probe
from indexer.metrics import METRICS, QUERY_METRICS, QueryMetric, resolve_rerank
from indexer.opening import OpenIndex
from indexer.search.searcher import Match, Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from training.errors import UserError
from training.network.model import ModelCard

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Search:
    """The options of one search. `Searcher.search` explains them."""

    k: int
    metric: QueryMetric = "euclidean"
    labels: tuple[str, ...] = ()
    """If there are labels, only items with one of them are searched."""
    rerank: int | None = None
    flips: int | None = None


class Snapshot:
    """One commit of an index, its network, and what was made from its items."""

    def __init__(self, opened: OpenIndex, *, max_k: int):
        """Raises IndexDirectoryError if the probe or the map of the index is damaged."""
        self.opened = opened
        self.max_k = max_k
        self.probe: Probe | None = opened.probe
        self.map = Map.load(opened.index)
        self.metrics = _available_metrics(opened.searcher)
        """The metrics that the index supports."""

    @property
    def index(self) -> Index:
        return self.opened.index

    @property
    def embedder(self) -> Embedder:
        return self.opened.embedder

    @property
    def item_embedder(self) -> Embedder:
        """The network for new items. The first call may load it, so call it in a thread."""
        return self.opened.item_embedder

    @property
    def card(self) -> ModelCard:
        return self.opened.embedder.card

    @cached_property
    def name(self) -> str:
        """The name of the index's directory."""
        return self.index.name

    def check_k(self, k: int) -> None:
        """Raise KTooLargeError if a query may not ask for `k` answers."""
        if k > self.max_k:
            raise KTooLargeError(k, self.max_k)

    def known_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The labels without empty ones. No labels mean all items.

        Raises UnknownLabelError if no item has one of these labels. The first call reads all labels
        of the index, so call this method in a thread.
        """
        known = tuple(dict.fromkeys(label for label in labels if label))
        self.opened.check_label(known)
        return known

    def resolve(self, search: Search) -> Search:
        """Check a search and fill in its defaults.

        Raises KTooLargeError, MetricUnavailableError, HammingOnlyError or UnknownLabelError. Call
        this method in a thread, as `known_labels`.
        """
        self.check_k(search.k)
        if search.metric not in self.metrics:
            raise MetricUnavailableError(search.metric, self.metrics)
        rerank = resolve_rerank(search.metric, search.rerank, search.flips)
        return replace(search, rerank=rerank, labels=self.known_labels(search.labels))

    def try_out(self) -> None:
        """Embed a grey square, and search for it with each metric. Raises what goes wrong.

        Every commit is tried out before it answers, so this must be fast on a large index.
        """
        size = self.card.image_size
        features = self.embedder.embed(np.full((1, size, size, 3), 128, np.uint8)).features
        for metric in self.metrics:
            self.opened.searcher.try_out(features, metric)

    def search(self, features: Floats, search: Search) -> list[list[Match]]:
        """The nearest items of each feature (B, 4096). `search` must come from `resolve`."""
        return self.opened.searcher.search(
            features,
            search.k,
            metric=search.metric,
            label=search.labels or None,
            rerank=search.rerank or 0,
            flips=search.flips,
        )


class KTooLargeError(UserError):
    """A query asks for more answers than one query may have."""

    def __init__(self, k: int, max_k: int):
        super().__init__(f"k: must be from 1 to {max_k}, got {k}")


class MetricUnavailableError(UserError):
    """The index does not support this metric."""

    def __init__(self, metric: QueryMetric, available: Sequence[QueryMetric]):
        super().__init__(
            f"metric: {metric} needs binary codes, but the index that is served has none; "
            f"pass one of {', '.join(available)}, or make codes with "
            "`lookalike index encode INDEX`"
        )


def _available_metrics(searcher: Searcher) -> tuple[QueryMetric, ...]:
    """The metrics that the index supports.

    If the codes are damaged, only the metrics that compare features are left.
    """
    if not searcher.index.manifest.has_codes:
        return METRICS
    try:
        _ = searcher.code_search
    except IndexDirectoryError as error:
        others = " and ".join(METRICS)
        logger.warning("%s; without codes, the index supports only %s", error, others)
        return METRICS
    return QUERY_METRICS
