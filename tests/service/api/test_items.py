"""GET /items, /items/{id} and its thumbnail."""

import io

import httpx
import pytest
from PIL import Image

from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.pictures import detail_of, problem


def test_items_are_paged_and_counted(client: httpx.Client) -> None:
    pages = [
        client.get("/items", params={"limit": 7, "offset": offset}).json() for offset in (0, 7, 14)
    ]
    total = len(COLOURS) * NUM_IMAGES_PER_COLOUR
    assert {page["total"] for page in pages} == {total}
    ids = [item["id"] for page in pages for item in page["items"]]
    assert len(set(ids)) == len(ids) == total


def test_items_of_one_label_are_listed(client: httpx.Client) -> None:
    page = client.get("/items?label=green").json()
    assert page["total"] == NUM_IMAGES_PER_COLOUR
    assert {item["label"] for item in page["items"]} == {"green"}


def test_items_of_any_of_several_labels_are_listed(client: httpx.Client) -> None:
    listed = client.get("/items?label=red&label=blue&limit=100").json()
    assert listed["total"] == len(listed["items"]) == 2 * NUM_IMAGES_PER_COLOUR
    assert {item["label"] for item in listed["items"]} == {"red", "blue"}
    assert client.get("/items?label=").json()["total"] == 3 * NUM_IMAGES_PER_COLOUR
    response = client.get("/items?label=red&label=purple")
    problem(response, 422, "unknown-label")


def test_an_item_has_its_path_and_size(client: httpx.Client) -> None:
    listed = client.get("/items?limit=1").json()["items"][0]
    assert client.get(f"/items/{listed['id']}").json() == listed
    assert (listed["width"], listed["height"]) == (96, 80)
    assert listed["path"].endswith(".png")


def test_a_thumbnail_is_a_jpeg_that_may_be_cached(client: httpx.Client) -> None:
    listed = client.get("/items?limit=1").json()["items"][0]
    response = client.get(listed["thumbnail"])
    assert response.headers["content-type"] == "image/jpeg"
    assert "immutable" in response.headers["cache-control"]
    assert Image.open(io.BytesIO(response.content)).size == (96, 80)
    etag = response.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get(listed["thumbnail"], headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    other = client.get(listed["thumbnail"], headers={"If-None-Match": f'"{etag[1:9]}"'})
    assert (other.status_code, other.content) == (200, response.content)


def test_a_thumbnail_without_its_version_must_be_revalidated(client: httpx.Client) -> None:
    listed = client.get("/items?limit=1").json()["items"][0]
    for address in (f"/items/{listed['id']}/thumbnail", f"/items/{listed['id']}/thumbnail?v=other"):
        assert client.get(address).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "address", ["/items/999999", "/items/0/thumbnail", "/items/9223372036854775807"]
)
def test_an_unknown_item_is_not_found(client: httpx.Client, address: str) -> None:
    problem(client.get(address), 404, "unknown-item")


@pytest.mark.parametrize(
    "address",
    [
        "/items/x",
        "/items/-1",
        "/items/9223372036854775808",
        "/items?limit=101",
        "/items?limit=-1",
        "/items?offset=99999999999999999999",
    ],
)
def test_numbers_out_of_range_are_refused(client: httpx.Client, address: str) -> None:
    problem(client.get(address), 422, "invalid-request")


@pytest.mark.parametrize("label", ["purple", "' OR 1=1 --", "\0", "%"])
def test_an_unknown_label_is_refused(client: httpx.Client, label: str) -> None:
    response = client.get("/items", params={"label": label})
    assert "red" in detail_of(response, 422, "unknown-label")
