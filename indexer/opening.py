"""An index that is open for queries, with the network that made its features.

The command line, the service and the Python API answer queries through OpenIndex.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args, overload

import numpy as np

from indexer.answers import (
    Classifier,
    QueryImage,
    QueryImages,
    answer_each,
    as_sequence,
    embed_images,
)
from indexer.array_types import Floats
from indexer.embedder import ClassScore, Embedder
from indexer.errors import NoProbeError, UnknownLabelError
from indexer.learned.probe import By, Probe
from indexer.metrics import QueryMetric, parse_metric, resolve_rerank
from indexer.search.searcher import Match, Searcher
from indexer.storage.index import Index, Labels
from indexer.storage.manifest import (
    MODEL_FOLDER,
    PROBE,
    IndexDirectoryError,
    check_model,
    is_index,
    read_manifest,
)
from training.devices import Device, RequestedPrecision
from training.errors import UserError
from training.network.model import NUM_FEATURES, ModelCard, read_card


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """The arguments of `open_index`."""

    directory: Path
    model: Path | None
    device: Device
    num_threads: int | None
    precision: RequestedPrecision


@dataclass(frozen=True)
class OpenIndex:
    """One commit of an index, its network and its searcher. Safe to use from several threads."""

    index: Index
    embedder: Embedder
    searcher: Searcher = field(repr=False)
    _opening: _Opening = field(repr=False)

    @property
    def model_directory(self) -> Path:
        """The directory of the model: the index's own copy, or another one that was given."""
        return _model_directory(self._opening)

    @property
    def item_embedder(self) -> Embedder:
        """The network for new items. It computes in the precision of the index's features.

        If it is another one than `embedder`, it is loaded when it is first needed, which takes a
        moment. Raises ModelError.
        """
        return self.embedder.with_precision(self.index.manifest.feature_precision)

    def reopened(self) -> "OpenIndex":
        """The current commit of the same directory.

        If the index still has the same model, the network is not loaded again. Raises
        IndexDirectoryError or ModelError.
        """
        return _open_newest(self._opening, self.embedder)

    @cached_property
    def probe(self) -> Probe | None:
        """The classifier that predicts item labels; None if the index has no probe.

        Raises IndexDirectoryError if the probe is damaged. If several threads need the probe at the
        same time, each thread may read its file, but all threads get an equal probe.
        """
        return Probe.load(self.index)

    def classifier(self, by: By = "classes") -> Classifier:
        """A classifier for the network's classes, or for the labels of the items.

        Raises NoProbeError for `by="items"` if the index has no probe.
        """
        if by not in get_args(By):
            raise UserError(f"`by` must be one of {', '.join(get_args(By))}, got {by!r}")
        if by == "classes":
            return Classifier(self.embedder)
        if self.probe is None:
            raise NoProbeError(self.index.directory)
        return Classifier(self.embedder, self.probe)

    @overload
    def similar(
        self,
        images: QueryImages,
        k: int = ...,
        *,
        metric: QueryMetric = ...,
        label: Labels | None = ...,
        rerank: int | None = ...,
        flips: int | None = ...,
    ) -> list[list[Match]]: ...

    @overload
    def similar(
        self,
        images: QueryImage,
        k: int = ...,
        *,
        metric: QueryMetric = ...,
        label: Labels | None = ...,
        rerank: int | None = ...,
        flips: int | None = ...,
    ) -> list[Match]: ...

    def similar(
        self,
        images: QueryImage | QueryImages,
        k: int = 6,
        *,
        metric: QueryMetric = "euclidean",
        label: Labels | None = None,
        rerank: int | None = None,
        flips: int | None = None,
    ) -> list[Match] | list[list[Match]]:
        """Find the `k` nearest items, nearest first.

        For a list of images, the result is one list of matches per image. Several labels mean the
        items that have any of them. `Searcher.search` explains the options. Raises ImageError for
        an unreadable image. Raises UserError if an option is unknown, is out of range or does not
        fit the metric. Raises IndexDirectoryError if the metric is hamming and the index has no
        codes.
        """
        rerank = resolve_rerank(parse_metric(metric), rerank, flips)
        _check_k(k)
        self.check_label(label)

        def search(queries: Sequence[QueryImage]) -> list[list[Match]]:
            return [
                matches
                for batch in embed_images(queries, self.embedder)
                for matches in self.searcher.search(
                    batch.embedding.features,
                    k,
                    metric=metric,
                    label=label,
                    rerank=rerank or 0,
                    flips=flips,
                )
            ]

        return answer_each(images, search)

    @overload
    def classify(
        self, images: QueryImages, k: int = ..., *, by: By = ...
    ) -> list[list[ClassScore]]: ...

    @overload
    def classify(self, images: QueryImage, k: int = ..., *, by: By = ...) -> list[ClassScore]: ...

    def classify(
        self, images: QueryImage | QueryImages, k: int = 5, *, by: By = "classes"
    ) -> list[ClassScore] | list[list[ClassScore]]:
        """The `k` most probable classes of an image, most probable first.

        For a list of images, the result is one list of classes per image. Raises ImageError for an
        unreadable image, UserError for an unknown `by` or a k below 1, and NoProbeError for
        `by="items"` if the index has no probe.
        """
        _check_k(k)
        classifier = self.classifier(by)
        return answer_each(images, lambda queries: classifier.classify(queries, k))

    def check_label(self, label: Labels | None) -> None:
        """Raise UnknownLabelError if no item has a label of `label`. None means all items."""
        labels = [label] if isinstance(label, str) else label or ()
        for one in labels:
            if not self.index.count(one):
                raise UnknownLabelError(one, list(self.index.labels()))

    def features(self, images: QueryImage | QueryImages) -> Floats:
        """The features (n, 4096) float32, one row per image.

        Raises ImageError for an unreadable image.
        """
        batches = embed_images(as_sequence(images), self.embedder)
        rows = [batch.embedding.features for batch in batches]
        return np.concatenate(rows) if rows else np.empty((0, NUM_FEATURES), np.float32)


def open_index(
    directory: str | Path,
    model: str | Path | None = None,
    *,
    device: Device = "cpu",
    num_threads: int | None = None,
    precision: RequestedPrecision = "auto",
) -> OpenIndex:
    """Open the current commit of an index for queries.

    `model` is a model directory to use instead of the index's own copy. The directory must contain
    the model that the index was built with. The network runs on the CPU with `num_threads` threads;
    None means all cores. `precision` is that of the queries' features. The index is searched on
    `device`. Raises IndexDirectoryError or ModelError.
    """
    opening = _Opening(
        directory=Path(directory),
        model=Path(model) if model else None,
        device=device,
        num_threads=num_threads,
        precision=precision,
    )
    return _open_newest(opening)


def open_classifier(
    directory: Path,
    *,
    by: By = "classes",
    device: Device = "cpu",
    precision: RequestedPrecision = "auto",
) -> Classifier:
    """Open a classifier with the network of a model directory or of an index.

    With `by="items"`, `directory` must be an index that has a probe; otherwise raises
    IndexDirectoryError. Raises ModelError if `directory` is neither a model nor an index.
    """
    if not is_index(directory):
        if by == "items":
            raise IndexDirectoryError(
                f"--by items needs an index with a probe but {directory} is not an index; "
                "pass an index, or leave out --by"
            )
        return Classifier(Embedder(directory, device=device, precision=precision))
    index = Index.open(directory)
    if by == "items" and PROBE not in index.manifest.artefacts:
        raise NoProbeError(directory)
    remedy = "restore it from a copy, or build the index again"
    model_directory = directory / MODEL_FOLDER
    card = _checked_card(index, model_directory, f"its {MODEL_FOLDER}", remedy)
    embedder = Embedder(model_directory, card=card, device=device, precision=precision)
    return Classifier(embedder, Probe.load(index) if by == "items" else None)


def _open_newest(opening: _Opening, embedder: Embedder | None = None) -> OpenIndex:
    index = Index.open(opening.directory)
    try:
        return _open(index, opening, embedder)
    except IndexDirectoryError:
        # A writer may have replaced a file after the manifest was read.
        if read_manifest(opening.directory).commit == index.manifest.commit:
            raise
    return _open(Index.open(opening.directory), opening, embedder)


def _open(index: Index, opening: _Opening, embedder: Embedder | None) -> OpenIndex:
    """Open one commit. `embedder` is used if its model is that of the index."""
    directory = _model_directory(opening)
    if embedder is None or embedder.card.id != index.manifest.model_id:
        remedy = "pass the --model that it was built with, or build the index again"
        card = _checked_card(index, directory, str(directory), remedy)
        embedder = Embedder(
            directory, card=card, num_threads=opening.num_threads, precision=opening.precision
        )
    return OpenIndex(index, embedder, Searcher(index, device=opening.device), opening)


def _model_directory(opening: _Opening) -> Path:
    return opening.model or opening.directory / MODEL_FOLDER


def _checked_card(index: Index, model_directory: Path, name: str, remedy: str) -> ModelCard:
    """Read the card of a model, and check that the index was built with this model.

    In an error message, `name` names the model and `remedy` says what to do.
    """
    card = read_card(model_directory)
    check_model(index.manifest, index.directory, card, name, remedy)
    return card


def _check_k(k: int) -> None:
    if k < 1:
        raise UserError(f"k must be 1 or more, got {k}")
