"""The engine without HTTP: its checks, and its own errors."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from indexer.metrics import HammingOnlyError
from indexer.opening import NoProbeError, UnknownLabelError, open_index
from service.batching import Overloaded
from service.engine import (
    Engine,
    KTooLargeError,
    MetricUnavailableError,
    QueryImageError,
    Search,
)
from service.settings import read_settings
from tests.conftest import COLOURS
from tests.service.pictures import picture


@pytest.fixture(scope="module")
def engine(tiny_index: Path) -> Engine:
    """An engine that does not run: it can check queries but not answer them."""
    return Engine(open_index(tiny_index), read_settings(max_k=10))


def answered(tiny_index: Path, test: Callable[[Engine], Awaitable[None]]) -> None:
    """Run an asynchronous test of a running engine."""

    async def run() -> None:
        engine = Engine(open_index(tiny_index), read_settings(max_images=2, max_waiting=2))
        async with engine.running():
            await test(engine)

    asyncio.run(run())


def test_a_search_for_an_empty_label_is_for_all_items(engine: Engine) -> None:
    assert engine.resolve(Search(k=3, label="")) == Search(k=3)


def test_k_is_accepted_at_the_limit_and_refused_above_it(engine: Engine) -> None:
    assert engine.resolve(Search(k=10)).k == 10
    with pytest.raises(KTooLargeError, match="from 1 to 10, got 11"):
        engine.resolve(Search(k=11))


def test_an_unknown_label_is_refused_with_the_labels_there_are(engine: Engine) -> None:
    with pytest.raises(UnknownLabelError, match="purple; the labels are: blue, green, red"):
        engine.resolve(Search(k=3, label="purple"))


def test_a_metric_that_needs_codes_is_refused_without_them(engine: Engine) -> None:
    assert engine.metrics == ("euclidean", "cosine")
    with pytest.raises(MetricUnavailableError, match="lookalike index encode"):
        engine.resolve(Search(k=3, metric="hamming"))


def test_options_of_codes_are_refused_for_other_metrics(engine: Engine) -> None:
    with pytest.raises(HammingOnlyError, match="rerank"):
        engine.resolve(Search(k=3, rerank=5))
    with pytest.raises(HammingOnlyError, match="flips"):
        engine.resolve(Search(k=3, metric="cosine", flips=1))


def test_the_first_unreadable_image_is_named_by_its_position(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        with pytest.raises(QueryImageError) as error:
            await engine.embed([io.BytesIO(picture()), io.BytesIO(b"no image")])
        assert (error.value.position, error.value.reason) == (1, "not-an-image")
        assert engine.batcher.num_waiting == 0

    answered(tiny_index, test)


def test_classify_names_all_classes_and_needs_a_probe_for_labels(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        (scores,) = await engine.classify([io.BytesIO(picture())], 10)
        assert {score.name for score in scores} == set(COLOURS)
        with pytest.raises(NoProbeError):
            await engine.classify([io.BytesIO(picture())], 10, "items")

    answered(tiny_index, test)


def test_more_images_than_may_wait_are_refused_before_they_are_decoded(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        files = [io.BytesIO(picture()) for _ in range(3)]
        with pytest.raises(Overloaded):
            await engine.embed(files)
        assert [file.tell() for file in files] == [0, 0, 0]

    answered(tiny_index, test)
