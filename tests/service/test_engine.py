"""The engine without HTTP: batches of the images of several requests, and what is left of them."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.embedder import Embedding
from indexer.errors import NoProbeError
from indexer.opening import open_index
from indexer.storage.row_writing import NewItem
from service.engine import Engine
from service.settings import read_settings
from service.snapshot import KTooLargeError, Search, Snapshot
from service.stage import Batch
from service.ticket import Dropped, Ticket
from tests.conftest import COLOURS
from tests.service.conftest import BrokenEmbedder, HeldEmbedder, TriedOutEmbedder
from tests.service.pictures import encoded, picture
from training.data.images import ImageError, Picture, open_picture, read_square


def files(*contents: bytes) -> list[io.BytesIO]:
    return [io.BytesIO(content) for content in contents]


def with_engine(
    directory: Path,
    test: Callable[[Engine], Awaitable[None]],
    *,
    embedder: TriedOutEmbedder | None = None,
    on_batch: Callable[[Batch], None] = lambda batch: None,
    **settings: Any,
) -> None:
    """Run an asynchronous test of a running engine."""
    opened = open_index(directory)
    if embedder:
        opened = replace(opened, embedder=embedder)
        embedder.is_tried_out = True

    async def run() -> None:
        engine = Engine(Snapshot(opened, max_k=10), read_settings(**settings), on_batch)
        async with engine.running():
            await test(engine)

    asyncio.run(run())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


def reasons(answers: Sequence[object]) -> list[str | None]:
    """The reason of each image that cannot be used, and None for the others."""
    return [answer.reason if isinstance(answer, ImageError) else None for answer in answers]


def test_each_unusable_image_has_an_error_and_the_others_an_embedding(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        snapshot = engine.snapshot
        contents = [b"words", picture("red"), b"", picture("blue")]
        with Ticket(1000) as ticket:
            answers = await engine.embed(snapshot, files(*contents), ticket)
        assert reasons(answers) == ["not-an-image", None, "empty", None]
        squares = np.stack([read_square(contents[at], 67) for at in (1, 3)])
        expected = snapshot.embedder.embed(squares)
        for answer, feature in zip((answers[1], answers[3]), expected.features, strict=True):
            assert isinstance(answer, Embedding)
            np.testing.assert_allclose(answer.features, feature, atol=1e-3)

    with_engine(tiny_index, test)


def test_an_image_with_too_many_pixels_is_an_error(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        with Ticket(1000) as ticket:
            answers = await engine.embed(engine.snapshot, files(picture()), ticket)
        assert reasons(answers) == ["too-many-pixels"]

    with_engine(tiny_index, test, max_pixels=96 * 80 - 1)


def test_if_no_image_can_be_used_nothing_runs(tiny_index: Path, tiny_model: Path) -> None:
    async def test(engine: Engine) -> None:
        search = engine.snapshot.resolve(Search(k=3))
        with Ticket(1000) as ticket:
            answers = await engine.search(engine.snapshot, files(b"", b"words"), search, ticket)
        assert reasons(answers) == ["empty", "not-an-image"]

    with_engine(tiny_index, test, embedder=BrokenEmbedder(tiny_model))


def test_classify_names_all_classes_and_needs_a_probe_for_labels(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        snapshot = engine.snapshot
        with Ticket(1000) as ticket:
            scores, error = await engine.classify(
                snapshot, files(picture(), b"words"), 10, "classes", ticket
            )
            assert isinstance(scores, list)
            assert {score.name for score in scores} == set(COLOURS)
            assert isinstance(error, ImageError)
            with pytest.raises(NoProbeError):
                await engine.classify(snapshot, files(picture()), 10, "items", ticket)
            with pytest.raises(KTooLargeError):
                await engine.classify(snapshot, files(picture()), 11, "classes", ticket)

    with_engine(tiny_index, test)


def test_the_images_of_several_requests_share_batches(tiny_index: Path, tiny_model: Path) -> None:
    embedder = HeldEmbedder(tiny_model)
    batches: list[Batch] = []

    async def test(engine: Engine) -> None:
        async def search(colour: str) -> list[str]:
            wanted = engine.snapshot.resolve(Search(k=3, labels=(colour,)))
            with Ticket(1000) as ticket:
                answers = await engine.search(
                    engine.snapshot, files(picture(colour), picture(colour, 8)), wanted, ticket
                )
            return [str(match.label) for matches in answers for match in matches]  # type: ignore[union-attr]

        first = asyncio.create_task(search("red"))
        await until(embedder.has_begun.is_set)
        others = [asyncio.create_task(search(colour)) for colour in COLOURS]
        await until(lambda: len([one for one in batches if one.stage == "decode"]) == 8)
        embedder.may_go_on.set()
        assert await first == ["red"] * 6
        assert [await other for other in others] == [[colour] * 6 for colour in COLOURS]

    with_engine(tiny_index, test, embedder=embedder, on_batch=batches.append)
    # Images may be decoded one after the other, so the first batch may have one image or two.
    sizes = [len(one.waits_s) for one in batches if one.stage == "network"]
    assert sizes in ([2, 6], [1, 7])
    # Searches for different labels cannot share a batch.
    searches = [len(one.waits_s) for one in batches if one.stage == "search"]
    assert sum(searches) == 8
    assert max(searches) <= 4


def test_a_failure_of_the_network_is_raised_and_the_next_request_is_answered(
    tiny_index: Path, tiny_model: Path
) -> None:
    embedder = BrokenEmbedder(tiny_model)

    async def test(engine: Engine) -> None:
        with Ticket(1000) as ticket:
            with pytest.raises(RuntimeError, match="the secret reason"):
                await engine.embed(engine.snapshot, files(picture(), picture()), ticket)
            embedder.is_tried_out = False  # it works once
            (answer,) = await engine.embed(engine.snapshot, files(picture()), ticket)
            assert isinstance(answer, Embedding)

    with_engine(tiny_index, test, embedder=embedder)


def test_a_request_that_waits_for_the_network_is_dropped_in_time(
    tiny_index: Path, tiny_model: Path
) -> None:
    """Before that, its images were decoded. This time does not count, and the wait goes on."""
    embedder = HeldEmbedder(tiny_model)

    async def test(engine: Engine) -> None:
        async def embed(max_wait_s: float) -> list[Any]:
            with Ticket(max_wait_s) as ticket:
                return await engine.embed(engine.snapshot, files(picture()), ticket)

        first = asyncio.create_task(embed(1000))
        await until(embedder.has_begun.is_set)
        with pytest.raises(Dropped, match="has waited"):
            await embed(0.5)
        assert not embedder.may_go_on.is_set()
        embedder.may_go_on.set()
        assert len(await first) == 1

    with_engine(tiny_index, test, embedder=embedder)


def test_a_network_that_works_on_one_batch_for_too_long_hangs(
    tiny_index: Path, tiny_model: Path
) -> None:
    embedder = HeldEmbedder(tiny_model)

    async def test(engine: Engine) -> None:
        assert not engine.is_hanging
        with Ticket(1000) as ticket:
            asked = asyncio.create_task(engine.embed(engine.snapshot, files(picture()), ticket))
            await until(lambda: engine.is_hanging)
            embedder.may_go_on.set()
            await asked
            await until(lambda: not engine.is_hanging)

    with_engine(tiny_index, test, embedder=embedder, hang_s=0.2)


def test_new_items_have_features_and_the_given_names(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        contents = [picture("red"), b"words", picture("blue")]
        names = [("a.png", "red"), ("words", None), ("b.png", None)]
        with Ticket(1000) as ticket:
            red, error, blue = await engine.embed_items(
                engine.snapshot, files(*contents), names, ticket
            )
        assert isinstance(error, ImageError)
        assert isinstance(red, NewItem)
        assert isinstance(blue, NewItem)
        assert (red.path, red.label, blue.path, blue.label) == ("a.png", "red", "b.png", None)
        assert (red.width, red.height) == (96, 80)
        for item, content in ((red, contents[0]), (blue, contents[2])):
            square = read_square(content, 67)[None]
            feature = engine.snapshot.embedder.embed(square).features[0]
            np.testing.assert_allclose(item.feature, feature, atol=1e-3)

    with_engine(tiny_index, test)


def test_a_search_by_features_needs_no_image(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        snapshot = engine.snapshot
        search = snapshot.resolve(Search(k=1))
        with Ticket(1000) as ticket:
            assert await engine.search_features(snapshot, [], search, ticket) == []
            features = [snapshot.index.features[row] for row in (3, 7)]
            matches = await engine.search_features(snapshot, features, search, ticket)
        assert [one[0].item.id for one in matches] == [4, 8]

    with_engine(tiny_index, test)


def test_large_images_are_decoded_one_after_the_other_and_delay_no_others(
    tiny_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.LARGE_BYTES", 100_000)
    held, num_large, most = threading.Event(), [0], [0]

    def hold(source: Any, *, size: int) -> Picture:
        is_large = source.num_bytes > 100_000
        num_large[0] += is_large
        most[0] = max(most[0], num_large[0])
        if is_large:
            assert held.wait(60)
        opened = open_picture(source, size=size)
        num_large[0] -= is_large
        return opened

    monkeypatch.setattr("service.engine.open_picture", hold)
    large, small = encoded(Image.new("RGB", (300, 300), "red")), picture("blue")
    stages: set[str] = set()

    async def test(engine: Engine) -> None:
        async def embed(*contents: bytes) -> list[Any]:
            with Ticket(1000) as ticket:
                return list(await engine.embed(engine.snapshot, files(*contents), ticket))

        waiting = [asyncio.create_task(embed(large, small, b"words")) for _ in range(3)]
        async with asyncio.timeout(60):
            (answer,) = await embed(small)
        assert isinstance(answer, Embedding)
        assert not any(task.done() for task in waiting)
        held.set()
        for task in waiting:
            assert reasons(await task) == [None, None, "not-an-image"]
        assert most == [1]

    with_engine(tiny_index, test, num_decoders=2, on_batch=lambda batch: stages.add(batch.stage))
    assert stages == {"decode", "decode_large", "network"}


def test_a_large_new_item_is_the_same_as_a_small_one(
    tiny_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[Any] = []

    async def test(engine: Engine) -> None:
        with Ticket(1000) as ticket:
            added.extend(
                await engine.embed_items(
                    engine.snapshot, files(picture("red")), [("a.png", "red")], ticket
                )
            )

    with_engine(tiny_index, test)
    monkeypatch.setattr("service.engine.LARGE_BYTES", 0)
    with_engine(tiny_index, test)
    small, large = added
    assert (large.path, large.label, large.sha256) == (small.path, small.label, small.sha256)
    assert large.thumbnail == small.thumbnail


def test_the_error_of_an_image_does_not_keep_the_file_in_memory(tiny_index: Path) -> None:
    async def test(engine: Engine) -> None:
        with Ticket(1000) as ticket:
            contents = (b"words", b"\xff\xd8\xff", picture()[:300])
            answers = await engine.embed(engine.snapshot, files(*contents), ticket)
        assert reasons(answers) == ["not-an-image", "truncated", "truncated"]
        for error in answers:
            assert isinstance(error, ImageError)
            assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)

    with_engine(tiny_index, test)
