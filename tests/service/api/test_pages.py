"""The web page: its headers, and how it works in a real browser."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import LIMITS, Browse, Service
from tests.service.pictures import picture


def test_the_page_and_its_files_are_there_with_safe_headers(client: httpx.Client) -> None:
    page = client.get("/")
    assert client.head("/").status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for address in ["/", *re.findall(r'(?:src|href)="(web/[^"]+)"', page.text)]:
        response = client.get(address)
        assert response.status_code == 200
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe-inline" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"


def test_no_page_refers_to_another_server(client: httpx.Client) -> None:
    for address in (
        "/",
        "/web/style.css",
        "/web/app.js",
        "/web/elements.js",
        "/web/map.js",
        "/docs",
    ):
        found = re.findall(
            r"""(?:src|href)=["']https?:|url\(['"]?https?:|from ["']https?:""",
            client.get(address).text,
        )
        assert not found


def file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


@pytest.fixture
def page(service: Service, browse: Browse) -> Page:
    """The page before the first picture."""
    return browse(service.url)


@pytest.mark.browser
def test_before_the_first_picture_the_page_shows_what_is_indexed(page: Page) -> None:
    assert (
        f"{len(COLOURS) * NUM_IMAGES_PER_COLOUR} images, {len(COLOURS)} labels"
        in page.inner_text("#matches-note")
    )
    assert page.locator(".card").count() == 12
    assert page.locator("#label option").count() == 1 + len(COLOURS)
    assert page.locator("#classes").is_hidden()


@pytest.mark.browser
def test_a_chosen_picture_gets_its_classes_and_look_alikes(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector("#bars li")
    assert page.locator("#bars li").count() == len(COLOURS)
    assert page.locator(".card .label").first.inner_text() == "blue"
    assert page.locator(".card .distance").count() == min(12, LIMITS["max_k"])
    assert page.locator("#preview").is_visible()
    assert "sky.png" in page.inner_text("#status")
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


@pytest.mark.browser
def test_a_click_on_a_look_alike_searches_by_it(page: Page) -> None:
    card = page.locator(".card").first
    path, label = card.get_attribute("title"), card.locator(".label").inner_text()
    assert path
    card.click()
    page.wait_for_selector("#bars li")
    assert page.inner_text("#filename") == path.split("/")[-1]
    assert page.locator(".card .label").first.inner_text() == label


@pytest.mark.browser
def test_a_label_narrows_the_search(page: Page) -> None:
    page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector(".card .distance")
    page.select_option("#label", "red")
    expect(page.locator(".card .label")).to_have_text(
        ["red"] * NUM_IMAGES_PER_COLOUR, timeout=60_000
    )


@pytest.mark.browser
def test_the_distance_may_be_chosen(page: Page) -> None:
    page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector(".card .distance")
    page.select_option("#metric", "cosine")
    expect(page.locator(".card .distance").first).to_have_text(
        re.compile(r"^0\.0\d\d$"), timeout=60_000
    )


@pytest.mark.browser
def test_a_file_that_is_no_image_is_answered_with_what_to_send(page: Page) -> None:
    page.set_input_files("#file", file("notes.txt", b"just some words"))
    page.wait_for_selector("#problem:not([hidden])")
    assert "notes.txt: this is not an image; send JPEG" in page.inner_text("#problem")
    page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector("#bars li")
    assert page.locator("#problem").is_hidden()


@pytest.mark.browser
def test_a_file_too_large_is_not_even_sent(page: Page) -> None:
    page.set_input_files("#file", file("huge.png", b"\0" * (LIMITS["max_image_bytes"] + 1)))
    page.wait_for_selector("#problem:not([hidden])")
    assert "200,001 bytes" in page.inner_text("#problem")


@pytest.mark.browser
def test_a_file_name_is_shown_as_text(page: Page) -> None:
    name = "<img src=x onerror=document.title=1>.png"
    page.set_input_files("#file", file(name, picture()))
    page.wait_for_selector("#bars li")
    assert page.inner_text("#filename") == name
    assert page.title() == "Lookalike"


@pytest.mark.browser
def test_a_picture_may_be_pasted_or_dropped(page: Page) -> None:
    for event, field, colour in (
        ("paste", "clipboardData", "red"),
        ("drop", "dataTransfer", "green"),
    ):
        page.evaluate(
            """([event, field, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], `${event}.png`, { type: "image/png" }));
                const Kind = event === "paste" ? ClipboardEvent : DragEvent;
                document.dispatchEvent(new Kind(event, { [field]: data, bubbles: true, cancelable: true }));
            }""",
            [event, field, list(picture(colour))],
        )
        expect(page.locator("#status")).to_contain_text(f"{event}.png", timeout=60_000)
        assert page.locator(".card .label").first.inner_text() == colour


@pytest.mark.browser
def test_the_docs_need_no_other_server(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/docs")
    page.wait_for_selector(".opblock")
    assert "/classify" in page.inner_text("#swagger-ui")
