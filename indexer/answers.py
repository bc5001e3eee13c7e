"""Decode query images, embed them in batches, and classify them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from indexer.embedder import ClassScore, Embedder, Embedding, likeliest
from indexer.learned.probe import Probe
from indexer.search.searcher import Match
from training.data.examples import Example
from training.data.images import (
    ImageError,
    Pixels,
    Source,
    TarMember,
    from_pillow,
    read_square,
    to_square,
)
from training.parallel import map_ahead, num_cores

BATCH_SIZE = 32

QueryImage = str | Source | Image.Image | Pixels
"""A query: a path, a file's bytes, a member of a tar shard, a PIL image, or an RGB array (H, W, 3)
uint8."""
QueryImages = list[Any] | tuple[QueryImage, ...]
"""Several queries of any kind. The type list[QueryImage] would not accept a list[Path]."""
_Answer = TypeVar("_Answer")

_pillow_lock = threading.Lock()


@dataclass(frozen=True)
class EmbeddedBatch:
    """Query images that went through the network together."""

    positions: list[int]
    """The position of each image in the sequence of queries."""
    squares: Pixels
    """(B, S, S, 3) uint8, the input of the network."""
    embedding: Embedding


def embed_images(
    images: Sequence[QueryImage],
    embedder: Embedder,
    *,
    skip_unreadable: Callable[[int, ImageError], None] | None = None,
) -> Iterator[EmbeddedBatch]:
    """Decode and embed images in order, BATCH_SIZE at a time. Decoding uses one thread per core.

    An unreadable image raises ImageError. If `skip_unreadable` is given, such an image is left out
    instead, and `skip_unreadable` is called with the image's position and the error.
    """

    def read(image: QueryImage) -> Pixels | ImageError:
        try:
            return _to_square(image, embedder.card.image_size)
        except ImageError as error:
            return error

    def run(waiting: list[tuple[int, Pixels]]) -> EmbeddedBatch:
        squares = np.stack([square for _, square in waiting])
        positions = [position for position, _ in waiting]
        return EmbeddedBatch(positions, squares, embedder.embed(squares))

    waiting: list[tuple[int, Pixels]] = []
    with ThreadPoolExecutor(num_cores()) as pool:
        for position, square in enumerate(map_ahead(pool, read, images, ahead=2 * BATCH_SIZE)):
            if not isinstance(square, ImageError):
                waiting.append((position, square))
            elif skip_unreadable is None:
                raise _with_name(square, images[position])
            else:
                skip_unreadable(position, square)
            if len(waiting) == BATCH_SIZE:
                yield run(waiting)
                waiting = []
    if waiting:
        yield run(waiting)


@dataclass(frozen=True)
class Classifier:
    """Classifies images by the network's classes or, with a probe, by the labels of an index."""

    embedder: Embedder
    probe: Probe | None = None

    def scores(self, embedding: Embedding, k: int) -> list[list[ClassScore]]:
        """The `k` most probable classes of each image of a batch, most probable first."""
        if self.probe:
            logits, names = self.probe.logits(embedding.features), self.probe.facts.labels
        else:
            logits, names = embedding.logits, self.embedder.card.class_names
        return [likeliest(logits_of_image, names, k) for logits_of_image in logits]

    def classify(self, images: Sequence[QueryImage], k: int = 5) -> list[list[ClassScore]]:
        """The `k` most probable classes of each image; raises ImageError for an unreadable one."""
        batches = embed_images(images, self.embedder)
        return [scores for batch in batches for scores in self.scores(batch.embedding, k)]


def without_itself(matches: Sequence[Match], example: Example, k: int) -> list[Match]:
    """The `k` nearest matches of an indexed image, except the image itself.

    `matches` must be the k + 1 nearest matches, because the image itself is usually one of them.
    """
    return [match for match in matches if match.path != example.path][:k]


def answer_each(
    images: QueryImage | QueryImages,
    answer: Callable[[Sequence[QueryImage]], list[_Answer]],
) -> _Answer | list[_Answer]:
    """One answer for one image, a list of answers for a list of images."""
    answers = answer(as_sequence(images))
    return answers if isinstance(images, list | tuple) else answers[0]


def as_sequence(images: QueryImage | QueryImages) -> Sequence[QueryImage]:
    """The queries as a sequence, even if there is only one."""
    return images if isinstance(images, list | tuple) else [images]


def _to_square(image: QueryImage, size: int) -> Pixels:
    """The square that the network sees for one query; raises ImageError."""
    if isinstance(image, Image.Image):
        # Pillow decodes an opened file when its pixels are first used. Two threads must not do
        # this to the same image, and a list of queries may contain an image twice.
        with _pillow_lock:
            return to_square(from_pillow(image), size)
    if isinstance(image, np.ndarray):
        return to_square(from_pillow(_from_array(image)), size)
    if isinstance(image, str):
        image = Path(image)
    if not isinstance(image, bytes | Path | TarMember):
        raise ImageError(
            "unsupported",
            "a query must be a path, the bytes of a file, a PIL image or an RGB array, "
            f"got {type(image).__name__}",
        )
    return read_square(image, size)


def _from_array(pixels: Pixels) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size or pixels.dtype != np.uint8:
        raise ImageError(
            "unsupported",
            "an image array must be RGB of shape (height, width, 3) and dtype uint8, "
            f"got {pixels.shape} {pixels.dtype}",
        )
    return Image.fromarray(pixels)


def _with_name(error: ImageError, image: QueryImage) -> ImageError:
    """The error with the name of the file, if the query is a file."""
    is_file = isinstance(image, str | Path | TarMember)
    return ImageError(error.reason, f"{image}: {error}") if is_file else error
