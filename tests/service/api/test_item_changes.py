"""POST /items and DELETE /items/{id}: what they answer, and what the next query finds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.storage.directory import take_lock
from indexer.storage.index import Index
from tests.service.conftest import Run, Service
from tests.service.pictures import detail_of, picture, problem, upload

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
