"""The methods of both clients: on the real service, and on a fake one for what rarely happens."""

import inspect
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.opening import open_index
from service.client import (
    Added,
    ClassScore,
    Client,
    Match,
    NoAnswerError,
    Problem,
    ServiceError,
)
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.client.conftest import Connect
from tests.service.client.fakes import KEY, PNG, URL, Failure, FakeService, images, page, problem
from tests.service.conftest import Run, Service
from tests.service.pictures import picture

ROOT = Path(__file__).parents[3]
RED, BLUE = ("red.png", picture("red")), ("blue.png", picture("blue"))
NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the clients, which do not really wait."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("service.client.client.sleep", waited.append)
    monkeypatch.setattr("service.client.async_client.sleep", wait)
    return waited


@pytest.fixture(scope="module")
def writable(
    run: Run, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that accepts changes of its index, with KEY."""
    index = Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("writable") / "index"))
    with run(index=index, write_key=KEY) as running:
        yield running


# On the real service.


def test_the_client_answers_like_the_index(
    service: Service, tiny_index: Path, colour_folder: Path, connect: Connect
) -> None:
    index, client = open_index(tiny_index), connect(service.url)
    path = colour_folder / "red" / "3.png"
    for image in (path, str(path), path.read_bytes(), ("cat.png", path.read_bytes())):
        (match, *_), expected = client.similar(image, k=4), index.similar(path, k=4)[0]
        assert (match.path, match.label, match.id) == ("red/3.png", "red", expected.item.id)
        assert match.distance == pytest.approx(expected.distance, abs=0.01)
        scores, names = client.classify(image, k=2), [one.name for one in index.classify(path, k=2)]
        assert [score.name for score in scores] == names
        np.testing.assert_allclose(client.features(image), index.features(path), atol=0.01)


def test_a_list_has_a_list_of_answers(service: Service, connect: Connect) -> None:
    client = connect(service.url)
    red, blue = client.similar([RED, BLUE], k=1)
    assert (red[0].label, blue[0].label) == ("red", "blue")
    assert len(client.similar([RED])) == 1
    assert [len(scores) for scores in client.classify([RED, BLUE], k=2)] == [2, 2]
    features = client.features([RED, BLUE])
    assert (features.shape, features.dtype) == ((2, 4096), np.float32)
    assert (client.classify([]), client.features([]).shape) == ([], (0, 4096))


def test_the_options_of_a_search_are_sent(service: Service, connect: Connect) -> None:
    client = connect(service.url)
    matches = client.similar(RED, k=3, metric="cosine", label="green")
    assert {match.label for match in matches} == {"green"}
    assert 0 < matches[0].distance < 2
    with pytest.raises(ServiceError) as raised:
        client.similar(RED, label="purple")
    assert (raised.value.type, raised.value.status) == ("unknown-label", 422)


def test_a_single_unusable_image_is_raised(service: Service, connect: Connect) -> None:
    client = connect(service.url)
    for ask in (client.classify, client.similar, client.features):
        with pytest.raises(ServiceError) as raised:
            ask(("notes.txt", b"just text"))
        assert (raised.value.type, raised.value.status) == ("not-an-image", 415)
        assert raised.value.filename == "notes.txt"


def test_a_request_that_is_too_large_is_an_error_of_the_service(
    service: Service, connect: Connect
) -> None:
    with pytest.raises(ServiceError) as raised:
        connect(service.url).classify(("large.png", bytes(5_000_000)))
    assert (raised.value.type, raised.value.status) == ("too-many-bytes", 413)


def test_features_raise_for_one_unusable_image(service: Service, connect: Connect) -> None:
    with pytest.raises(ServiceError) as raised:
        connect(service.url).features([RED, ("notes.txt", b"just text")])
    assert raised.value.filename == "notes.txt"


def test_items_are_listed_on_pages_and_one_by_one(service: Service, connect: Connect) -> None:
    client = connect(service.url)
    first = client.items(limit=7)
    assert (len(first.items), first.total) == (7, NUM_ITEMS)
    assert client.items(limit=1, offset=6).items == first.items[-1:]
    for page_size in (5, 6, 100):
        items = list(client.all_items(page_size=page_size))
        assert items[:7] == first.items
        assert len({item.id for item in items}) == NUM_ITEMS
    greens = list(client.all_items("green", page_size=4))
    assert [item.label for item in greens] == ["green"] * NUM_IMAGES_PER_COLOUR


def test_an_item_has_its_details_and_a_thumbnail(service: Service, connect: Connect) -> None:
    client = connect(service.url)
    listed = client.items(limit=1).items[0]
    assert client.item(listed.id) == listed
    assert (listed.width, listed.height, len(listed.sha256)) == (96, 80, 64)
    assert Image.open(io.BytesIO(client.thumbnail(listed.id))).size == (96, 80)
    with pytest.raises(ServiceError) as raised:
        client.item(999_999)
    assert raised.value.type == "unknown-item"


def test_info_describes_the_service(service: Service, connect: Connect) -> None:
    info = connect(service.url).info()
    assert info.index.num_items == NUM_ITEMS
    assert info.model.class_names == list(COLOURS)
    assert info.limits.max_images == service.engine.settings.max_images
    assert info.versions["numpy"] == np.__version__


def test_a_service_is_ready_when_it_can_be_reached(service: Service, connect: Connect) -> None:
    assert connect(service.url).is_ready()
    assert not connect("http://127.0.0.1:9").is_ready()


def test_a_client_may_be_used_from_several_threads(service: Service) -> None:
    colours = list(COLOURS) * 8

    def label_of(number: int) -> str | None:
        return client.similar(picture(colours[number], seed=number), k=1)[0].label

    with Client(service.url) as client, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(label_of, range(len(colours)))) == colours


def test_the_service_adds_finds_and_removes_items(writable: Service, connect: Connect) -> None:
    client = connect(writable.url, key=KEY)
    name, content = (
        f"{type(client).__name__}.png",
        picture("green", seed=len(type(client).__name__)),
    )
    added = client.add((name, content), label="new", path=f"new/{name}")
    assert (added.path, added.label, added.status) == (f"new/{name}", "new", "added")
    assert client.add((name, content), label="new", path=f"new/{name}").status == "unchanged"
    assert client.similar((name, content), k=1)[0].id == added.id
    matches = client.similar_to(added.id, k=3, label=["green", "red"])
    assert [match.label for match in matches] == ["green"] * 3
    assert client.remove(added.id).id == added.id
    with pytest.raises(ServiceError) as raised:
        client.item(added.id)
    assert raised.value.type == "unknown-item"


def test_the_service_answers_for_the_usable_images_of_several(
    writable: Service, connect: Connect
) -> None:
    client = connect(writable.url)
    for ask in (client.classify, client.similar):
        red, problem, blue = ask([RED, ("notes.txt", b"just text"), BLUE])
        assert red
        assert blue
        assert isinstance(problem, Problem)
        assert (problem.type, problem.filename) == ("not-an-image", "notes.txt")


def test_the_service_refuses_a_change_without_its_key(writable: Service, connect: Connect) -> None:
    for key in (None, "another-key"):
        with pytest.raises(ServiceError) as raised:
            connect(writable.url, key=key).add(RED)
        assert (raised.value.type, raised.value.status) == ("unauthorized", 401)


# On the fake service.


def test_an_unusable_image_of_several_is_a_problem_in_its_place(connect: Connect) -> None:
    client = connect(URL, key=KEY, transport=FakeService().transport)
    sent = [("a.png", PNG), ("b.txt", b"text"), ("c.png", PNG)]
    for ask, kind in ((client.classify, list), (client.similar, list), (client.add, Added)):
        first, second, third = ask(sent)
        assert isinstance(first, kind)
        assert isinstance(second, Problem)
        assert isinstance(third, kind)
        assert (second.type, second.filename) == ("not-an-image", "b.txt")


def test_if_no_image_is_usable_the_first_problem_is_raised(connect: Connect) -> None:
    client = connect(URL, transport=FakeService().transport)
    with pytest.raises(ServiceError) as raised:
        client.classify([("a.txt", b"text"), ("b.txt", b"text")])
    assert raised.value.filename == "a.txt"


def test_items_are_added_and_removed(connect: Connect) -> None:
    service = FakeService()
    client = connect(URL, key=KEY, transport=service.transport)
    added = client.add(("7.png", PNG), label="red", path="red/7.png")
    assert (added.path, added.label, added.status) == ("red/7.png", "red", "added")
    again = client.add(("7.png", PNG), label="red", path="red/7.png")
    assert (again.id, again.status) == (added.id, "unchanged")
    assert client.remove(added.id).id == added.id
    assert not service.items
    with pytest.raises(ServiceError, match="detail"):
        client.remove(added.id)


def test_neighbours_of_an_item_are_matches(connect: Connect) -> None:
    service = FakeService()
    (match,) = connect(URL, transport=service.transport).similar_to(5, k=3, label=["red", "blue"])
    assert (match.id, match.label) == (7, "red")
    assert service.requests[0].url.params.get_list("label") == ["red", "blue"]


def test_a_missing_key_is_refused(connect: Connect) -> None:
    with pytest.raises(ServiceError) as raised:
        connect(URL, transport=FakeService().transport).add(PNG)
    assert (raised.value.type, raised.value.status) == ("unauthorized", 401)


@pytest.mark.parametrize(
    "failure",
    [
        problem("overloaded", 429, retry_after="3"),
        problem("index-busy", 503, retry_after="3"),
        page(503),
        httpx.ConnectError("refused"),
    ],
)
def test_a_busy_service_is_asked_again_with_the_same_images(
    connect: Connect, waits: list[float], tmp_path: Path, failure: Failure
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    service = FakeService([failure, failure])
    client = connect(URL, key=KEY, transport=service.transport)
    assert client.add([path, ("b.png", PNG)])[0].status == "added"
    assert [images(request) for request in service.requests] == [
        [("a.png", PNG), ("b.png", PNG)]
    ] * 3
    assert len(waits) == 2
    has_time = isinstance(failure, httpx.Response) and "retry-after" in failure.headers
    assert (waits == [3.0, 3.0]) is has_time


def test_a_service_that_stays_busy_is_an_error(connect: Connect, waits: list[float]) -> None:
    service = FakeService([problem("overloaded", 429, "busy", retry_after="1")] * 9)
    client = connect(URL, max_retries=2, transport=service.transport)
    with pytest.raises(ServiceError) as raised:
        client.info()
    assert (raised.value.type, str(raised.value)) == ("overloaded", "busy")
    assert (len(service.requests), waits) == (3, [1.0, 1.0])


def test_a_wait_that_is_too_long_is_not_begun(connect: Connect, waits: list[float]) -> None:
    service = FakeService([problem("draining", 503, retry_after="31")])
    with pytest.raises(ServiceError, match="detail"):
        connect(URL, max_wait_s=30, transport=service.transport).info()
    assert not waits


@pytest.mark.parametrize("status", [400, 401, 404, 408, 422, 500, 502, 504])
def test_no_other_status_is_retried(connect: Connect, status: int) -> None:
    service = FakeService([problem("a-problem", status, retry_after="0")])
    with pytest.raises(ServiceError) as raised:
        connect(URL, transport=service.transport).classify(PNG)
    assert raised.value.status == status
    assert len(service.requests) == 1


LOSING: list[tuple[Callable[[Any], Any], int]] = [
    (lambda client: client.classify(PNG), 2),
    (lambda client: client.items(), 2),
    (lambda client: client.add(PNG), 1),
    (lambda client: client.remove(7), 1),
]
"""Calls, and how often they are sent if the first answer is lost."""


@pytest.mark.parametrize(("ask", "num_requests"), LOSING)
def test_only_calls_that_change_nothing_are_repeated_if_an_answer_is_lost(
    connect: Connect, waits: list[float], ask: Callable[[Any], Any], num_requests: int
) -> None:
    service = FakeService([httpx.RemoteProtocolError("disconnected")])
    client = connect(URL, key=KEY, transport=service.transport)
    if num_requests == 1:
        with pytest.raises(NoAnswerError, match="disconnected"):
            ask(client)
    else:
        ask(client)
    assert len(service.requests) == num_requests


def test_the_answer_of_a_proxy_is_an_error(connect: Connect) -> None:
    with pytest.raises(ServiceError, match="502 Bad Gateway") as raised:
        connect(URL, transport=FakeService([page(502)]).transport).classify(PNG)
    assert (raised.value.type, raised.value.status) == ("about:blank", 502)


def test_readiness_is_not_retried(connect: Connect) -> None:
    service = FakeService([problem("not-ready", 503, retry_after="0")])
    assert not connect(URL, transport=service.transport).is_ready()
    assert len(service.requests) == 1


def test_a_page_size_below_one_is_refused(connect: Connect) -> None:
    with pytest.raises(Exception, match="page_size must be 1 or more, got 0"):
        list(connect(URL, transport=FakeService().transport).all_items(page_size=0))


# The types and the imports.


def test_one_image_and_a_list_have_different_types() -> None:
    """mypy checks the annotations, the test checks the values."""
    with Client(URL, key=KEY, transport=FakeService().transport) as client:
        scores: list[ClassScore] = client.classify(PNG)
        matches: list[list[Match] | Problem] = client.similar([PNG])
        added: Added = client.add(PNG)
    assert scores[0].name == added.filename.replace("image 1", "red")
    assert len(matches) == 1


def test_every_public_method_is_documented() -> None:
    methods = [one for name, one in vars(Client).items() if not name.startswith("_")]
    assert all(inspect.getdoc(one) for one in methods)


def test_the_client_does_not_import_the_server() -> None:
    program = """
import sys
for name in ("fastapi starlette uvicorn faiss onnxruntime torch PIL indexer service.engine "
             "training.data training.network").split():
    sys.modules[name] = None  # importing it now raises
import service.client
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_httpx_the_import_names_the_extra() -> None:
    program = "import sys; sys.modules['httpx'] = None; import service.client"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "pip install 'lookalike[client]'" in done.stderr
