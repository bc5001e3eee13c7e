"""The engine of the service: it decodes, embeds and searches for all requests together.

The engine does not depend on HTTP. It raises UserErrors, and service/api/problems.py turns them
into responses.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np

from indexer.array_types import Floats
from indexer.embedder import ClassScore, Embedder, Embedding
from indexer.learned.probe import By
from indexer.search.searcher import Match
from indexer.storage.row_writing import NewItem
from indexer.updates.prepare import Decoded, decode
from service.admission import Admission
from service.settings import Settings
from service.snapshot import Search, Snapshot
from service.stage import Batch, Stage
from service.ticket import Ticket
from training.data.examples import Example
from training.data.images import (
    Checked,
    ImageError,
    Pixels,
    check_picture,
    open_picture,
    to_square,
)
from training.data.memory_budget import LARGE_BYTES

NUM_SEARCHES = 2
"""Number of batches of searches that run at the same time. So a slow search does not stop all
others."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Large:
    """The decoding of a large image, to be done later.

    Large images are decoded one after the other, in a thread of their own. So they do not delay the
    others.
    """

    decode: Callable[[], Any]


class Engine:
    """Answers queries with the network and the index.

    The threads run inside `async with engine.running()`. `on_batch` is called after each batch of a
    stage.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: Settings,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ):
        self.snapshot = snapshot
        """New requests are answered from it. It is replaced when the index changes."""
        self.settings = settings
        self.is_draining = False
        self.admission = Admission(
            max_waiting=settings.max_waiting,
            max_wait_s=settings.max_wait_s,
            max_uploads=settings.max_uploads,
        )
        self._decoding: Stage[Callable[[Any], Any], Any, Any] = Stage(
            "decode",
            lambda decode, files: [decode(file) for file in files],
            num_threads=settings.num_decoders,
            on_batch=on_batch,
        )
        self._large: Stage[None, _Large, Any] = Stage(
            "decode_large", lambda _, works: [work.decode() for work in works], on_batch=on_batch
        )
        self._network = Stage("network", _embed, max_batch=settings.max_batch, on_batch=on_batch)
        self._searching = Stage(
            "search",
            _search,
            num_threads=NUM_SEARCHES,
            max_batch=settings.max_batch,
            on_batch=on_batch,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the threads inside the block."""
        async with AsyncExitStack() as stack:
            for stage in (self._decoding, self._large, self._network, self._searching):
                await stack.enter_async_context(stage)
            yield

    @property
    def is_hanging(self) -> bool:
        """Whether the network has been working on one batch for too long."""
        return self._network.busy_s > self.settings.hang_s

    async def embed(
        self, snapshot: Snapshot, files: Sequence[BinaryIO], ticket: Ticket
    ) -> list[Embedding | ImageError]:
        """The logits and features of each image file, or why the file cannot be used.

        Raises Dropped if the request is dropped.
        """
        size, max_pixels = snapshot.card.image_size, self.settings.max_pixels

        def decode_query(file: BinaryIO) -> Pixels | _Large:
            checked = check_picture(file.read(), size=size, max_pixels=max_pixels)
            return _now_or_later(checked, lambda: to_square(open_picture(checked, size=size), size))

        squares = await self._decode(decode_query, files, ticket)
        return await self._run_network(snapshot.embedder, squares, ticket)

    async def embed_items(
        self,
        snapshot: Snapshot,
        files: Sequence[BinaryIO],
        names: Sequence[tuple[str, str | None]],
        ticket: Ticket,
    ) -> list[NewItem | ImageError]:
        """The new item of each image file, or why the file cannot be used.

        `names` are the path and the label of each file. Raises Dropped if the request is dropped.
        """

        size, max_pixels = snapshot.card.image_size, self.settings.max_pixels

        def prepare(named: tuple[BinaryIO, tuple[str, str | None]]) -> Decoded | _Large:
            file, (path, label) = named
            content = file.read()
            checked = check_picture(content, size=size, max_pixels=max_pixels)
            sha256 = hashlib.sha256(content).hexdigest()
            example = Example(path, label, content)
            return _now_or_later(checked, lambda: decode(checked, example, sha256, image_size=size))

        works = list(zip(files, names, strict=True))
        images = await self._decode(prepare, works, ticket)
        squares = [one if isinstance(one, ImageError) else one.square for one in images]
        embedder = await asyncio.to_thread(lambda: snapshot.item_embedder)
        embeddings = await self._run_network(embedder, squares, ticket)
        features = (one.features for one in embeddings if isinstance(one, Embedding))
        return [
            image if isinstance(image, ImageError) else image.with_feature(next(features))
            for image in images
        ]

    async def classify(
        self, snapshot: Snapshot, files: Sequence[BinaryIO], k: int, by: By, ticket: Ticket
    ) -> list[list[ClassScore] | ImageError]:
        """The `k` most probable classes of each image file, most probable first.

        Raises KTooLargeError, and the errors of `embed`. With `by="items"`, raises NoProbeError if
        the index has no probe.
        """
        snapshot.check_k(k)
        classifier = snapshot.opened.classifier(by)
        return [
            one if isinstance(one, ImageError) else classifier.scores(_as_batch(one), k)[0]
            for one in await self.embed(snapshot, files, ticket)
        ]

    async def search(
        self, snapshot: Snapshot, files: Sequence[BinaryIO], search: Search, ticket: Ticket
    ) -> list[list[Match] | ImageError]:
        """The nearest items of each image file. `search` must come from `snapshot.resolve`.

        Raises the errors of `embed`.
        """
        embeddings = await self.embed(snapshot, files, ticket)
        features = [one.features for one in embeddings if isinstance(one, Embedding)]
        matches = iter(await self.search_features(snapshot, features, search, ticket))
        return [one if isinstance(one, ImageError) else next(matches) for one in embeddings]

    async def search_features(
        self, snapshot: Snapshot, features: Sequence[Floats], search: Search, ticket: Ticket
    ) -> list[list[Match]]:
        """The nearest items of each feature (4096,). `search` must come from `snapshot.resolve`.

        Raises Dropped if the request is dropped.
        """
        if not features:
            return []
        return _all(await self._searching.do((snapshot, search), features, ticket))

    async def _decode(
        self, decode: Callable[[Any], Any], works: Sequence[Any], ticket: Ticket
    ) -> list[Any | ImageError]:
        """The result of `decode` for each piece of work, or why an image cannot be used.

        If `decode` returns a _Large, it is done in the thread for large images.
        """
        images = _images_or_errors(await self._decoding.do(decode, works, ticket))
        if not (large := [one for one in images if isinstance(one, _Large)]):
            return images
        done = iter(_images_or_errors(await self._large.do(None, large, ticket)))
        return [next(done) if isinstance(one, _Large) else one for one in images]

    async def _run_network(
        self, embedder: Embedder, squares: Sequence[Pixels | ImageError], ticket: Ticket
    ) -> list[Embedding | ImageError]:
        usable = [square for square in squares if not isinstance(square, ImageError)]
        answers = await self._network.do(embedder, usable, ticket) if usable else []
        embeddings = iter(_all(answers))
        return [
            square if isinstance(square, ImageError) else next(embeddings) for square in squares
        ]


def _now_or_later(checked: Checked, decode: Callable[[], Answer]) -> Answer | _Large:
    """Decode an image now. If it is large, return how to decode it later."""
    return _Large(decode) if checked.num_bytes > LARGE_BYTES else decode()


def _embed(embedder: Embedder, squares: Sequence[Pixels]) -> list[Embedding]:
    """The output of the network for each square."""
    batch = embedder.embed(np.stack(squares))
    return [
        Embedding(logits, features)
        for logits, features in zip(batch.logits, batch.features, strict=True)
    ]


def _search(key: tuple[Snapshot, Search], features: Sequence[Floats]) -> list[list[Match]]:
    """The nearest items of each feature. All features are searched together."""
    snapshot, search = key
    return snapshot.search(np.stack(features), search)


def _as_batch(embedding: Embedding) -> Embedding:
    return Embedding(embedding.logits[None], embedding.features[None])


def _all(answers: Sequence[Answer | BaseException]) -> list[Answer]:
    """The answers of a stage; raises the first error."""
    good = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        good.append(answer)
    return good


def _images_or_errors(answers: Sequence[Answer | BaseException]) -> list[Answer | ImageError]:
    """The answers of a stage, with the errors of images among them; raises any other error."""
    outcomes: list[Answer | ImageError] = []
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, ImageError):
            raise answer
        if isinstance(answer, ImageError):  # its traceback would keep the bytes of the file
            answer.__traceback__ = answer.__cause__ = answer.__context__ = None
        outcomes.append(answer)
    return outcomes
