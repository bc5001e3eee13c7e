"""What every request shares: the index, the network behind its batcher, the searcher, and the threads they work in."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Request

from indexer.embedder import Embedder, Embedding
from indexer.learned.item_map import Map
from indexer.learned.probe import By, Probe
from indexer.metrics import DEFAULT_RERANK, METRICS, QUERY_METRICS, QueryMetric
from indexer.search.searcher import Match, Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from service.api.problems import ProblemError
from service.api.schemas import SimilarQuery
from service.api.uploads import Upload, decode
from service.batching import Batcher
from service.settings import Settings

logger = logging.getLogger(__name__)
MAX_LABELS_NAMED = 10


class Engine:
    """Answers queries; its parts stay open until `running` ends."""

    def __init__(self, index: Index, embedder: Embedder, searcher: Searcher, settings: Settings):
        self.index = index
        self.card = embedder.card
        self.settings = settings
        self.is_draining = False
        self.probe = Probe.load(index)
        self.map = Map.load(index)
        self._searcher = searcher
        self.metrics = _metrics_of(searcher)
        """What the index can be searched by."""
        self.batcher = Batcher(
            embedder.embed, max_batch=settings.max_batch, max_waiting=settings.max_waiting
        )
        self._threads = ThreadPoolExecutor(settings.num_decoders, thread_name_prefix="decode")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.batcher:
            try:
                yield
            finally:
                self._threads.shutdown(wait=True, cancel_futures=True)

    async def embed(self, uploads: Sequence[Upload]) -> Embedding:
        """Logits and features of images; raises ProblemError for the first that cannot be used, or if the service is busy."""
        with self.batcher.admit(len(uploads)):
            return await self._embed(uploads)

    async def search(self, uploads: Sequence[Upload], query: SimilarQuery) -> list[list[Match]]:
        """The nearest items of each image, for a query that `check_similar` gave; raises ProblemError as `embed` does."""
        with self.batcher.admit(len(uploads)):
            embedding = await self._embed(uploads)
            find = partial(
                self._searcher.search,
                embedding.features,
                query.k,
                metric=query.metric,
                label=query.label,
                rerank=query.rerank or 0,
                flips=query.flips,
            )
            return await asyncio.get_running_loop().run_in_executor(self._threads, find)

    async def _embed(self, uploads: Sequence[Upload]) -> Embedding:
        loop = asyncio.get_running_loop()
        decode_one = partial(decode, size=self.card.image_size, max_pixels=self.settings.max_pixels)
        decoding = (loop.run_in_executor(self._threads, decode_one, upload) for upload in uploads)
        # All are awaited even if one fails: the files are closed once the request has been answered.
        decoded = await asyncio.gather(*decoding, return_exceptions=True)
        squares = []
        for square in decoded:
            if isinstance(square, BaseException):
                raise square
            squares.append(square)
        return await self.batcher.embed(squares)

    def check_k(self, k: int) -> int:
        """k, if a query may ask for so many; raises ProblemError."""
        if k > self.settings.max_k:
            raise ProblemError(
                "invalid-request", f"k: must be from 1 to {self.settings.max_k}, got {k}"
            )
        return k

    def check_similar(self, query: SimilarQuery) -> SimilarQuery:
        """The query with what it leaves to us filled in, if the index can be searched so; raises ProblemError."""
        self.check_k(query.k)
        if query.metric not in self.metrics:
            remedy = f"pass one of {', '.join(self.metrics)}, or make codes with `lookalike index encode INDEX` and start the service again"
            detail = f"metric: the index that is served has no binary codes, as {query.metric} needs; {remedy}"
            raise ProblemError("unavailable-metric", detail)
        rerank = query.rerank
        if query.metric == "hamming":
            rerank = DEFAULT_RERANK if rerank is None else rerank
        else:
            for name, value in (("rerank", rerank), ("flips", query.flips)):
                if value is not None:
                    detail = f"{name}: is for metric=hamming only, got {value} with metric={query.metric}; leave it out"
                    raise ProblemError("invalid-request", detail)
        return query.model_copy(update={"rerank": rerank, "label": self.check_label(query.label)})

    def check_by(self, by: By) -> Probe | None:
        """The probe that answers with the items' labels, None where the network's classes are asked for; raises ProblemError."""
        if by == "items" and self.probe is None:
            remedy = "fit one with `lookalike index probe INDEX` and start the service again, or ask by=classes"
            raise ProblemError(
                "no-probe",
                f"by: items needs a probe of the items' labels, and the index that is served has none; {remedy}",
            )
        return self.probe if by == "items" else None

    def check_label(self, label: str | None) -> str | None:
        """The label, None for all items; raises ProblemError if no item has it."""
        if not label or self.index.count(label):
            return label or None
        labels = list(self.index.labels())
        some = ", ".join(repr(name) for name in labels[:MAX_LABELS_NAMED]) or "none"
        more = (
            f" and {len(labels) - MAX_LABELS_NAMED} more, see /info"
            if len(labels) > MAX_LABELS_NAMED
            else ""
        )
        raise ProblemError(
            "unknown-label", f"no item has the label {label[:100]!r}; the labels are {some}{more}"
        )


def _metrics_of(searcher: Searcher) -> tuple[QueryMetric, ...]:
    """Damaged codes do not keep the index from being searched by its features."""
    if not searcher.index.manifest.has_codes:
        return METRICS
    try:
        _ = searcher.codes
    except IndexDirectoryError as error:
        logger.warning(
            "%s; without them the index is searched by %s only", error, " and ".join(METRICS)
        )
        return METRICS
    return QUERY_METRICS


def engine_of(request: Request) -> Engine:
    """A dependency: the engine of the app that serves this request."""
    engine: Engine = request.app.state.engine
    return engine
