"""POST /items and DELETE /items/{id}: what they answer, and what the next query finds."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexer.embedder import Embedder
from indexer.storage.directory import take_lock
from indexer.storage.index import Index
from indexer.updates import additions
from indexer.updates.build import build
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from service import live_index
from tests.service.conftest import PATIENCE_S, Run, Service
from tests.service.figures import figure
from tests.service.pictures import detail_of, picture, problem, upload, wait_until
from tests.service.raw_http import connected, post
from training.data.images import read_square

KEY = {"Authorization": "Bearer open-sesame"}


@pytest.fixture
def writable(run: Run, own_index: Path) -> Iterator[Service]:
    """A service on an index of its own, with a write key."""
    with run(index=own_index, write_key="open-sesame") as service:
        service.client.headers.update(KEY)
        yield service


def added(client: httpx.Client, *files: bytes | tuple[str, bytes], **data: str) -> dict[str, Any]:
    response = client.post("/items", files=upload(*files), data=data)
    assert response.status_code == 201, response.text
    content: dict[str, Any] = response.json()
    return content


def nearest(client: httpx.Client, image: bytes) -> dict[str, Any]:
    (result,) = client.post("/similar?k=1", files=upload(image)).json()["results"]
    match: dict[str, Any] = result["matches"][0]
    return match


def test_an_added_image_is_found_by_the_next_query_and_stays(
    writable: Service, own_index: Path
) -> None:
    image = picture("red", 1)
    answer = added(writable.client, ("new.png", image), label="crimson", path="a/new.png")
    (result,) = answer["results"]
    assert (result["path"], result["label"], result["status"]) == ("a/new.png", "crimson", "added")
    match = nearest(writable.client, image)
    assert (match["id"], match["label"]) == (result["id"], "crimson")
    assert match["distance"] == pytest.approx(0, abs=1e-2)
    assert writable.client.get(match["thumbnail"]).headers["content-type"] == "image/jpeg"
    reopened = Index.open(own_index)
    assert reopened.manifest.commit == answer["commit"]
    item = reopened.item(result["id"])
    assert item is not None
    assert item.path == "a/new.png"
    assert writable.client.get("/info").json()["index"]["labels"]["crimson"] == 1


def test_several_images_are_added_with_one_commit_beside_one_that_cannot_be_used(
    writable: Service, own_index: Path
) -> None:
    before = Index.open(own_index).manifest
    answer = added(
        writable.client, ("a.png", picture("red", 1)), ("b.png", b"no"), ("c.png", picture())
    )
    assert [one.get("status") for one in answer["results"]] == ["added", None, "added"]
    assert answer["results"][1]["problem"]["status"] == 415
    after = Index.open(own_index).manifest
    assert (after.commit, after.num_items) == (before.commit + 1, before.num_items + 2)


def test_a_strict_request_with_a_bad_image_adds_nothing(writable: Service, own_index: Path) -> None:
    before = Index.open(own_index).manifest
    files = upload(("a.png", picture()), ("b.png", b"no"))
    problem(writable.client.post("/items?strict=true", files=files), 415, "not-an-image")
    assert Index.open(own_index).manifest == before


def test_a_path_replaces_its_item_and_a_file_name_never_does(writable: Service) -> None:
    client = writable.client
    (first,) = added(client, ("x.png", picture("red", 1)))["results"]
    (second,) = added(client, ("x.png", picture("red", 2)))["results"]
    assert first["path"] == "x.png"
    assert second["path"].startswith("x-")
    (third,) = added(client, picture("red", 3), path="x.png")["results"]
    assert (third["path"], third["status"]) == ("x.png", "replaced")
    problem(client.get(f"/items/{first['id']}"), 404, "unknown-item")
    (again,) = added(client, ("y.png", picture("red", 3)))["results"]
    assert (again["id"], again["status"]) == (third["id"], "unchanged")


def test_a_path_for_several_images_and_unknown_fields_are_refused(writable: Service) -> None:
    files = upload(picture("red", 1), picture("red", 2))
    response = writable.client.post("/items?path=a.png", files=files)
    assert "2 images" in detail_of(response, 422, "invalid-request")
    response = writable.client.post("/items", files=upload(picture()), data={"lable": "red"})
    assert "lable" in detail_of(response, 422, "invalid-request")


def test_a_removed_item_is_gone_for_the_next_query(writable: Service, own_index: Path) -> None:
    image = picture("blue", 5)
    (result,) = added(writable.client, image)["results"]
    answer = writable.client.delete(f"/items/{result['id']}")
    assert answer.status_code == 200
    assert answer.json()["id"] == result["id"]
    assert nearest(writable.client, image)["id"] != result["id"]
    problem(writable.client.delete(f"/items/{result['id']}"), 404, "unknown-item")
    assert Index.open(own_index).manifest.commit == answer.json()["commit"]


def test_an_index_in_use_is_busy_and_nothing_is_changed(writable: Service, own_index: Path) -> None:
    before = Index.open(own_index).manifest
    with take_lock(own_index):
        response = writable.client.post("/items", files=upload(picture()))
        assert int(response.headers["retry-after"]) >= 1
        detail = detail_of(response, 503, "index-busy")
        assert str(own_index) not in detail
        problem(writable.client.delete("/items/1"), 503, "index-busy")
    assert Index.open(own_index).manifest == before
    added(writable.client, picture())


def test_a_write_error_is_a_problem_and_nothing_is_changed(
    writable: Service, own_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Index.open(own_index).manifest

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("indexer.storage.writer.write_manifest", fail)
        response = writable.client.post("/items", files=upload(picture()))
    assert "No space left" in detail_of(response, 503, "index-busy")
    assert Index.open(own_index).manifest == before
    assert nearest(writable.client, picture())["distance"] > 0
    added(writable.client, picture())


class HeldWrites:
    """Changes of an index that wait until the test lets them go on. It notes their batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.sizes: list[int] = []
        self.errors: dict[int, Exception] = {}
        """The error of a batch, by its number."""
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()
        self._apply = additions.apply_changes
        monkeypatch.setattr(live_index, "apply_changes", self.apply)

    def apply(self, directory: Path, changes: Any, model_id: str) -> Any:
        self.sizes.append(len(changes))
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE_S)
        if error := self.errors.get(len(self.sizes)):
            raise error
        return self._apply(directory, changes, model_id)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, writable: Service) -> Iterator[HeldWrites]:
    held = HeldWrites(monkeypatch)
    yield held
    held.may_go_on.set()


def test_changes_that_arrive_together_are_committed_together(
    writable: Service, own_index: Path, held: HeldWrites
) -> None:
    before = Index.open(own_index).manifest
    client, admission = writable.client, writable.live_index.admission
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(added, client, ("0.png", picture("red", 100)))
        assert held.has_begun.wait(PATIENCE_S)
        pairs = [
            [(f"{number}{label}.png", picture(label, number)) for label in ("red", "blue")]
            for number in range(1, 5)
        ]
        others = [threads.submit(added, client, *pair) for pair in pairs]
        removal = threads.submit(client.delete, "/items/3")
        wait_until(lambda: admission.num_waiting == 10)
        assert writable.engine.admission.num_waiting == 0
        held.may_go_on.set()
        commits = {other.result()["commit"] for other in others}
        assert commits == {removal.result().json()["commit"]} == {before.commit + 2}
        assert first.result()["commit"] == before.commit + 1
        for other, pair in zip(others, pairs, strict=True):
            paths = [result["path"] for result in other.result()["results"]]
            assert paths == [name for name, _ in pair]
    assert held.sizes == [1, 9]
    assert figure(client, "batch_images_count", stage="write") == 2


def test_a_write_error_of_one_request_in_a_batch_leaves_no_half_of_it(
    writable: Service, own_index: Path, held: HeldWrites
) -> None:
    client = writable.client

    def add(number: int) -> httpx.Response:
        files = upload((f"{number}a.png", picture("red", number)), picture("blue", number))
        return client.post("/items", files=files)

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(add, 100)
        assert held.has_begun.wait(PATIENCE_S)
        others = [threads.submit(add, number) for number in range(3)]
        wait_until(lambda: writable.live_index.admission.num_waiting == 8)
        # The batch fails. Then its requests are tried one by one, and the second one fails again.
        held.errors = {2: OSError(5, "Input/output error"), 4: OSError(28, "No space left")}
        held.may_go_on.set()
        responses = [first.result(), *(other.result() for other in others)]
    assert held.sizes == [2, 6, 2, 2, 2]
    (refused,) = [response for response in responses if response.status_code != 201]
    assert "No space left" in detail_of(refused, 503, "index-busy")
    stored = [response for response in responses if response.status_code == 201]
    paths = {str(item.path) for item in Index.open(own_index).items(limit=100)}
    for response in stored:
        assert {result["path"] for result in response.json()["results"]} <= paths
    assert len(paths) == 18 + 2 * len(stored)


def test_many_clients_change_the_index_at_the_same_time(writable: Service, own_index: Path) -> None:
    def change(number: int) -> None:
        with httpx.Client(base_url=writable.url, headers=KEY, timeout=PATIENCE_S) as client:
            (result,) = added(client, (f"{number}.png", picture("green", number)))["results"]
            assert nearest(client, picture("green", number))["id"] == result["id"]
            if number % 2:
                assert client.delete(f"/items/{result['id']}").status_code == 200
                assert client.get(f"/items/{result['id']}").status_code == 404

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(24)))
    items = Index.open(own_index).items(limit=100)
    assert {item.path for item in items[18:]} == {f"{number}.png" for number in range(0, 24, 2)}
    assert verify(own_index).is_clean
    assert writable.client.get("/items").json()["total"] == 18 + 12


def test_a_change_that_waits_too_long_is_refused_and_not_made(
    run: Run, own_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "MAX_WAIT_S", 0.5)
    held = HeldWrites(monkeypatch)
    with (
        run(index=own_index, write_key="open-sesame") as service,
        ThreadPoolExecutor(1) as threads,
    ):
        service.client.headers.update(KEY)
        try:
            first = threads.submit(service.client.delete, "/items/1")
            assert held.has_begun.wait(PATIENCE_S)
            response = service.client.delete("/items/2")
            assert "has waited for 0.5 s" in detail_of(response, 429, "overloaded")
            assert int(response.headers["retry-after"]) >= 1
            assert figure(service.client, "dropped_images_total", reason="expired") == 1
        finally:
            held.may_go_on.set()
        assert first.result().status_code == 200
    index = Index.open(own_index)
    assert (index.item(1), index.item(2) is None) == (None, False)


def test_a_client_that_goes_while_its_change_waits_changes_nothing(
    writable: Service, own_index: Path, held: HeldWrites
) -> None:
    admission = writable.live_index.admission
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(writable.client.delete, "/items/1")
        assert held.has_begun.wait(PATIENCE_S)
        with connected(writable) as connection:
            head, body = post("/items", **KEY)
            connection.sendall(head + body)
            wait_until(lambda: admission.num_waiting == 2)
        wait_until(lambda: admission.num_waiting == 1)
        held.may_go_on.set()
        assert first.result().status_code == 200
    assert writable.client.delete("/items/2").status_code == 200
    assert held.sizes == [1, 1]
    assert Index.open(own_index).manifest.num_items == 16


def test_the_clients_own_deadline_does_not_hide_a_change_that_was_made(
    writable: Service, held: HeldWrites
) -> None:
    headers = {"X-Request-Timeout": "20"}
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(
            writable.client.post, "/items", files=upload(picture()), headers=headers
        )
        assert held.has_begun.wait(PATIENCE_S)
        held.may_go_on.set()
        response = asked.result()
    assert response.status_code == 201
    assert {"decode", "network", "write"} <= {
        part.partition(";")[0] for part in response.headers["server-timing"].split(", ")
    }


def test_slow_changes_do_not_make_queries_wait(writable: Service, held: HeldWrites) -> None:
    before_s = writable.engine.admission.image_s
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(writable.client.delete, "/items/1")
        assert held.has_begun.wait(PATIENCE_S)
        time.sleep(1.0)
        assert figure(writable.client, "waiting_images") == 0
        held.may_go_on.set()
        assert asked.result().status_code == 200
    assert writable.engine.admission.image_s == before_s
    assert writable.live_index.admission.image_s > before_s


def test_an_item_that_another_process_has_removed_meanwhile_is_unknown(
    run: Run, own_index: Path
) -> None:
    with run(index=own_index, write_key="open-sesame", poll_s=1000) as service:
        remove(own_index, ids=[4])
        assert service.client.get("/items/4").status_code == 200
        problem(service.client.delete("/items/4", headers=KEY), 404, "unknown-item")


def test_a_service_in_int8_adds_features_in_the_precision_of_the_index(
    run: Run, int8_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build(str(colour_folder), int8_model, index, device="cpu")
    image = picture("red", 1)
    with run(index=index, precision="int8", write_key="open-sesame") as service:
        service.client.headers.update(KEY)
        assert service.client.get("/info").json()["model"]["precision"] == "int8"
        added(service.client, image)
        added(service.client, picture("red", 2))
    square = read_square(image, 67)[None]
    expected = Embedder(int8_model).embed(square).features[0]
    np.testing.assert_allclose(Index.open(index).features[-2], expected, atol=1e-4)
