"""GET /map, and the map on the page."""

import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from indexer.learned.item_map import make
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import LIMITS, PATIENCE_S, Browse, Run, Service
from tests.service.pictures import picture, problem

NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


@pytest.fixture(scope="module")
def mapped_index(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("mapped") / "index"))
    make(directory)
    return directory


@pytest.fixture(scope="module")
def mapped(run: Run, mapped_index: Path) -> Iterator[Service]:
    with run(index=mapped_index) as running:
        yield running


def test_the_map_has_a_place_for_every_item_with_its_label(mapped: Service) -> None:
    answer = mapped.client.get("/map").json()
    items = {item["id"]: item for item in mapped.client.get("/items").json()["items"]}
    assert (answer["num_items"], answer["labels"]) == (NUM_ITEMS, sorted(COLOURS))
    assert answer["index"] == mapped.client.get("/info").json()["index"]["commit"]
    assert {id: answer["labels"][label] for id, _, _, label in answer["items"]} == {
        id: item["label"] for id, item in items.items()
    }
    assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y, _ in answer["items"])


def test_the_map_is_sent_once(mapped: Service) -> None:
    first = mapped.client.get("/map")
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "no-cache"
    again = mapped.client.get("/map", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_info_says_whether_there_is_a_map(mapped: Service, client: httpx.Client) -> None:
    found = mapped.client.get("/info").json()["index"]
    assert found["map"] == {"num_items": NUM_ITEMS, "commit": found["commit"] - 1}
    assert client.get("/info").json()["index"]["map"] is None


def test_an_index_without_a_map_says_how_to_make_one(client: httpx.Client) -> None:
    assert "lookalike index map" in problem(client.get("/map"), 404, "no-map")["detail"]


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
def page(mapped: Service, browse: Browse) -> Page:
    """The page with its map open."""
    return with_map(browse(mapped.url))


def with_map(page: Page) -> Page:
    page.click("#map-toggle")
    page.wait_for_selector("#map .legend li")
    return page


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until it does. Not Playwright's wait_for_function, which evaluates in the page, where its policy forbids that."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def place(page: Page, answer: dict[str, list[list[float]]], label: str) -> tuple[float, float]:
    """Where on the canvas an item of this label has its dot: where a pointer finds it."""
    box = page.locator("#map canvas").bounding_box()
    assert box
    spots = np.array([item[1:3] for item in answer["items"]])
    low, high = spots.min(axis=0), spots.max(axis=0)
    factor = min(
        (size - 44) / extent
        for size, extent in zip((box["width"], box["height"]), high - low, strict=True)
    )
    number = sorted(COLOURS).index(label)
    x, y = factor * (
        next(np.array(item[1:3]) for item in answer["items"] if item[3] == number)
        - (low + high) / 2
    )
    return box["width"] / 2 + x, box["height"] / 2 + y


def pixels(page: Page) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(page.locator("#map .plot").screenshot())).convert("RGB"), np.float32
    )


def num_coloured(page: Page) -> int:
    """Pixels of the map that are of a strong colour."""
    return int((np.ptp(pixels(page), axis=2) > 60).sum())


@pytest.mark.browser
def test_pointing_at_a_dot_shows_its_picture_and_a_click_searches_by_it(
    page: Page, mapped: Service
) -> None:
    answer = mapped.client.get("/map").json()
    for label in COLOURS:
        x, y = place(page, answer, label)
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
def test_away_from_the_dots_nothing_is_shown_or_asked(page: Page) -> None:
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
    # The rings.
    eventually(
        lambda: (
            (before.mean(axis=2) - pixels(page).mean(axis=2) > 60).sum()
            > NUM_IMAGES_PER_COLOUR * 10
        )
    )


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_is_drawn_sharply_in_light_and_dark_and_at_every_width(
    mapped: Service, browse: Browse, scheme: str
) -> None:
    page = with_map(browse(mapped.url, color_scheme=scheme, device_scale_factor=2))
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
def test_a_finger_looks_first_and_asks_with_its_second_tap(mapped: Service, browse: Browse) -> None:
    page = with_map(browse(mapped.url, has_touch=True))
    x, y = place(page, mapped.client.get("/map").json(), "green")
    page.locator("#map canvas").tap(position={"x": x, "y": y})
    expect(page.locator("#map .tip .label")).to_have_text("green")
    assert page.locator("#filename").is_hidden()
    page.locator("#map canvas").tap(position={"x": x, "y": y})
    page.wait_for_selector("#bars li")
    assert page.locator(".card .distance").count() == LIMITS["max_k"]


@pytest.mark.browser
def test_without_a_map_there_is_no_button_and_with_one_it_is_told_and_reached_by_keyboard(
    mapped: Service, service: Service, browse: Browse
) -> None:
    assert browse(service.url).locator("#map-toggle").is_hidden()
    page = browse(mapped.url)
    assert page.locator("#map").is_hidden()
    page.locator("#map-toggle").press("Enter")
    page.wait_for_selector("#map .legend li")
    assert page.locator("#map-toggle").get_attribute("aria-expanded") == "true"
    assert page.get_by_role("img", name=f"Map of {NUM_ITEMS} images").is_visible()
    page.locator("#map-toggle").press("Enter")
    assert page.locator("#map").is_hidden()
