"""GET /map, and the map on the page."""

import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import LIMITS, PATIENCE_S, Browse, Run, Service
from tests.service.pictures import detail_of, picture

NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


def test_the_map_has_a_position_for_every_item_with_its_label(mapped_service: Service) -> None:
    answer = mapped_service.client.get("/map").json()
    items = {item["id"]: item for item in mapped_service.client.get("/items").json()["items"]}
    assert (answer["num_items"], answer["labels"]) == (NUM_ITEMS, sorted(COLOURS))
    assert answer["index"] == mapped_service.engine.snapshot.index.directory.name
    assert answer["commit"] == mapped_service.client.get("/info").json()["index"]["commit"]
    assert {id: answer["labels"][label] for id, _, _, label in answer["items"]} == {
        id: item["label"] for id, item in items.items()
    }
    assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y, _ in answer["items"])


def test_a_client_that_has_the_map_is_not_sent_it_again(mapped_service: Service) -> None:
    first = mapped_service.client.get("/map")
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = mapped_service.client.get("/map", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    other = mapped_service.client.get("/map", headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


def test_an_index_without_a_map_says_how_to_make_one(client: httpx.Client) -> None:
    assert "lookalike index map" in detail_of(client.get("/map"), 404, "no-map")


def test_an_item_that_was_removed_is_not_on_the_map_that_is_served(
    run: Run, mapped_index: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(mapped_index, tmp_path / "index"))
    with IndexWriter.open(directory) as writer:
        writer.remove([1])
        writer.commit()
    with run(index=directory) as service:
        answer = service.client.get("/map").json()
        assert len(answer["items"]) == answer["num_items"] == NUM_ITEMS - 1
        assert 1 not in [id for id, *_ in answer["items"]]


@pytest.fixture
def page(mapped_service: Service, browse: Browse) -> Page:
    """The page with its map open."""
    return with_map(browse(mapped_service.url))


def with_map(page: Page) -> Page:
    page.click("#map-toggle")
    page.wait_for_selector("#map .legend li")
    return page


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it does. Playwright's wait_for_function cannot: the page's policy forbids eval."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def position_of(
    page: Page, answer: dict[str, list[list[float]]], label: str
) -> tuple[float, float]:
    """The position on the canvas of the dot of the first item with this label."""
    box = page.locator("#map canvas").bounding_box()
    assert box
    spots = np.array([item[1:3] for item in answer["items"]])
    low, high = spots.min(axis=0), spots.max(axis=0)
    sizes = np.array([box["width"], box["height"]])
    factor = ((sizes - 44) / (high - low)).min()
    number = sorted(COLOURS).index(label)
    spot = next(np.array(item[1:3]) for item in answer["items"] if item[3] == number)
    x, y = factor * (spot - (low + high) / 2)
    return box["width"] / 2 + x, box["height"] / 2 + y


def pixels(page: Page) -> np.ndarray:
    screenshot = io.BytesIO(page.locator("#map .plot").screenshot())
    return np.asarray(Image.open(screenshot).convert("RGB"), np.float32)


def num_coloured(page: Page) -> int:
    """Number of pixels of the map that have a strong colour."""
    return int((np.ptp(pixels(page), axis=2) > 60).sum())


@pytest.mark.browser
def test_pointing_at_a_dot_shows_its_picture_and_a_click_searches_by_it(
    page: Page, mapped_service: Service
) -> None:
    answer = mapped_service.client.get("/map").json()
    for label in COLOURS:
        x, y = position_of(page, answer, label)
        page.locator("#map canvas").hover(position={"x": x, "y": y})
        expect(page.locator("#map .tip .label")).to_have_text(label)
        eventually(
            lambda: page.evaluate("document.querySelector('#map .tip img').naturalWidth > 0")
        )
    page.locator("#map canvas").click(position={"x": x, "y": y})
    page.wait_for_selector("#bars li")
    assert page.locator("#map .tip").is_hidden()
    assert page.locator(".card .label").first.inner_text() == label


@pytest.mark.browser
def test_away_from_the_dots_nothing_is_shown_or_searched(page: Page) -> None:
    page.locator("#map canvas").click(position={"x": 8, "y": 8})
    assert page.locator("#map .tip").is_hidden()
    assert page.locator("#filename").is_hidden()


@pytest.mark.browser
def test_the_look_alikes_and_a_chosen_label_stand_out(page: Page) -> None:
    everything = num_coloured(page)
    page.select_option("#label", "blue")
    expect(page.locator(".card .label")).to_have_text(
        ["blue"] * NUM_IMAGES_PER_COLOUR, timeout=60_000
    )
    assert 0 < num_coloured(page) < everything / 2
    before = pixels(page)
    page.set_input_files(
        "#file", {"name": "sky.png", "mimeType": "image/png", "buffer": picture("blue")}
    )
    page.wait_for_selector(".card .distance")

    def num_darkened() -> int:
        """Number of pixels that became darker: the rings."""
        return int((before.mean(axis=2) - pixels(page).mean(axis=2) > 60).sum())

    eventually(lambda: num_darkened() > NUM_IMAGES_PER_COLOUR * 10)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_is_drawn_sharply_in_light_and_dark_and_at_every_width(
    mapped_service: Service, browse: Browse, scheme: str
) -> None:
    page = with_map(browse(mapped_service.url, color_scheme=scheme, device_scale_factor=2))
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        eventually(
            lambda: page.locator("#map canvas").evaluate(
                "canvas => canvas.width === 2 * canvas.clientWidth"
            )
        )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert num_coloured(page) > NUM_ITEMS * 20
        assert (pixels(page).mean() > 128) == (scheme == "light")


@pytest.mark.browser
def test_the_first_tap_of_a_finger_shows_the_picture_and_the_second_searches(
    mapped_service: Service, browse: Browse
) -> None:
    page = with_map(browse(mapped_service.url, has_touch=True))
    x, y = position_of(page, mapped_service.client.get("/map").json(), "green")
    page.locator("#map canvas").tap(position={"x": x, "y": y})
    expect(page.locator("#map .tip .label")).to_have_text("green")
    assert page.locator("#filename").is_hidden()
    page.locator("#map canvas").tap(position={"x": x, "y": y})
    page.wait_for_selector("#bars li")
    assert page.locator(".card .distance").count() == LIMITS["max_k"]


@pytest.mark.browser
def test_the_map_has_a_button_only_if_there_is_a_map_and_a_keyboard_can_open_it(
    mapped_service: Service, service: Service, browse: Browse
) -> None:
    assert browse(service.url).locator("#map-toggle").is_hidden()
    page = browse(mapped_service.url)
    assert page.locator("#map").is_hidden()
    page.locator("#map-toggle").press("Enter")
    page.wait_for_selector("#map .legend li")
    assert page.locator("#map-toggle").get_attribute("aria-expanded") == "true"
    assert page.get_by_role("img", name=f"Map of {NUM_ITEMS} images").is_visible()
    page.locator("#map-toggle").press("Enter")
    assert page.locator("#map").is_hidden()
