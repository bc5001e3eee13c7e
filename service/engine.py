"""The engine of the service: an open index, a batcher for the network, and threads.

All requests share one engine. The engine does not depend on HTTP. It raises UserErrors, and
service/api/problems.py turns them into responses.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from indexer.embedder import ClassScore, Embedding
from indexer.learned.item_map import Map
from indexer.learned.probe import By
from indexer.metrics import METRICS, QUERY_METRICS, QueryMetric, resolve_rerank
from indexer.opening import OpenIndex
from indexer.search.searcher import Match, Searcher
from indexer.storage.manifest import IndexDirectoryError
from service.batching import Batcher
from service.settings import Settings
from training.data.images import ImageError, Pixels, read_square
from training.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Search:
    """The options of one search. `Searcher.search` explains them."""

    k: int
    metric: QueryMetric = "euclidean"
    label: str | None = None
    rerank: int | None = None
    flips: int | None = None


class Engine:
    """Answers queries with the network and the index.

    The batcher and the threads run inside `async with engine.running()`.
    """

    def __init__(self, opened: OpenIndex, settings: Settings):
        """Raises IndexDirectoryError if the probe or the map of the index is damaged."""
        self.opened = opened
        self.index = opened.index
        self.card = opened.embedder.card
        self.settings = settings
        self.is_draining = False
        self.probe = opened.probe
        self.map = Map.load(opened.index)
        self.metrics = _available_metrics(opened.searcher)
        """The metrics that the index supports."""
        self.batcher = Batcher(
            opened.embedder.embed, max_batch=settings.max_batch, max_waiting=settings.max_waiting
        )
        self._threads = ThreadPoolExecutor(settings.num_decoders, thread_name_prefix="decode")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.batcher:
            try:
                yield
            finally:
                self._threads.shutdown(wait=True, cancel_futures=True)

    async def embed(self, files: Sequence[BinaryIO]) -> Embedding:
        """The logits and features of image files.

        Raises QueryImageError for the first image that cannot be used, and Overloaded if too many
        images are waiting.
        """
        with self.batcher.admit(len(files)):
            return await self._embed(files)

    async def classify(
        self, files: Sequence[BinaryIO], k: int, by: By = "classes"
    ) -> list[list[ClassScore]]:
        """The `k` most probable classes of each image file, most probable first.

        Raises KTooLargeError, and the errors of `embed`. With `by="items"`, raises NoProbeError if
        the index has no probe.
        """
        self._check_k(k)
        classifier = self.opened.classifier(by)
        return classifier.scores(await self.embed(files), k)

    def resolve(self, search: Search) -> Search:
        """Check a search and fill in its defaults. An empty label means all items.

        Raises KTooLargeError, MetricUnavailableError, HammingOnlyError or UnknownLabelError. The
        first check of a label reads all labels of the index, so call this method in a thread.
        """
        self._check_k(search.k)
        if search.metric not in self.metrics:
            raise MetricUnavailableError(search.metric, self.metrics)
        rerank = resolve_rerank(search.metric, search.rerank, search.flips)
        return replace(search, rerank=rerank, label=self.known_label(search.label))

    async def search(self, files: Sequence[BinaryIO], search: Search) -> list[list[Match]]:
        """The nearest items of each image file. `search` must come from `resolve`.

        Raises the errors of `embed`.
        """
        with self.batcher.admit(len(files)):
            embedding = await self._embed(files)
            find = partial(
                self.opened.searcher.search,
                embedding.features,
                search.k,
                metric=search.metric,
                label=search.label,
                rerank=search.rerank or 0,
                flips=search.flips,
            )
            return await asyncio.get_running_loop().run_in_executor(self._threads, find)

    def known_label(self, label: str | None) -> str | None:
        """The label. If it is empty, the result is None, which means all items.

        Raises UnknownLabelError if no item has this label.
        """
        label = label or None
        self.opened.check_label(label)
        return label

    def _check_k(self, k: int) -> None:
        if k > self.settings.max_k:
            raise KTooLargeError(k, self.settings.max_k)

    async def _embed(self, files: Sequence[BinaryIO]) -> Embedding:
        loop = asyncio.get_running_loop()
        decoding = (loop.run_in_executor(self._threads, self._decode, file) for file in files)
        # Wait for all images even if one fails, because the answer closes the files of all images.
        decoded = await asyncio.gather(*decoding, return_exceptions=True)
        squares = []
        for position, square in enumerate(decoded):
            if isinstance(square, ImageError):
                raise QueryImageError(position, square)
            if isinstance(square, BaseException):
                raise square
            squares.append(square)
        return await self.batcher.embed(squares)

    def _decode(self, file: BinaryIO) -> Pixels:
        size, max_pixels = self.card.image_size, self.settings.max_pixels
        return read_square(file.read(), size, max_pixels=max_pixels)


class QueryImageError(ImageError):
    """One image of a query cannot be used.

    `position` is the position of the image in the query.
    """

    def __init__(self, position: int, error: ImageError):
        super().__init__(error.reason, str(error))
        self.position = position


class KTooLargeError(UserError):
    """A query asked for more classes or matches than the settings allow."""

    def __init__(self, k: int, max_k: int):
        super().__init__(f"k: must be from 1 to {max_k}, got {k}")


class MetricUnavailableError(UserError):
    """The index does not support this metric."""

    def __init__(self, metric: QueryMetric, available: Sequence[QueryMetric]):
        super().__init__(
            f"metric: {metric} needs binary codes, but the index that is served has none; "
            f"pass one of {', '.join(available)}, or make codes with "
            "`lookalike index encode INDEX` and start the service again"
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
