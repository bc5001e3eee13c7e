"""The web page: its headers, and how it works in a real browser."""

import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, Route, expect

from indexer.learned.item_map import make_map
from indexer.learned.probe_fitting import make_probe
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.remove import remove
from service.api.pages import DIRECTORY
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR, coloured
from tests.service.conftest import LIMITS, Browse, Run, Service
from tests.service.pictures import encoded, picture, upload


def test_the_page_and_its_files_have_safe_headers(client: httpx.Client) -> None:
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
    pattern = r"""(?:src|href)=["']https?:|url\(['"]?https?:|from ["']https?:"""
    web = [f"/web/{file.name}" for file in DIRECTORY.iterdir() if file.suffix in (".css", ".js")]
    assert len(web) >= 4
    for address in ("/", "/docs", *web):
        assert not re.findall(pattern, client.get(address).text)


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
def test_the_distance_can_be_chosen(page: Page) -> None:
    page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector(".card .distance")
    page.select_option("#metric", "cosine")
    expect(page.locator(".card .distance").first).to_have_text(
        re.compile(r"^0\.0\d\d$"), timeout=60_000
    )


@pytest.mark.browser
@pytest.mark.parametrize("is_measured", [True, False])
def test_the_page_starts_with_the_distance_that_ranks_better(
    cosine_service: Service, service: Service, browse: Browse, is_measured: bool
) -> None:
    page = browse((cosine_service if is_measured else service).url)
    assert page.locator("#metric").input_value() == ("cosine" if is_measured else "euclidean")
    assert metric_of_search(page) == ("cosine" if is_measured else "euclidean")


@pytest.mark.browser
def test_a_chosen_distance_stays_for_the_next_pictures(
    cosine_service: Service, browse: Browse
) -> None:
    page = browse(cosine_service.url)
    page.select_option("#metric", "euclidean")
    assert [metric_of_search(page) for _ in range(2)] == ["euclidean"] * 2
    assert page.locator("#metric").input_value() == "euclidean"


def test_the_api_searches_by_euclidean_distance_even_if_cosine_ranks_better(
    cosine_service: Service,
) -> None:
    answer = cosine_service.client.post("/similar", files=upload(picture("blue"))).json()
    assert answer["metric"] == "euclidean"


@pytest.mark.browser
def test_a_picture_that_is_faster_than_the_page_is_asked_by_the_shown_distance(
    cosine_service: Service, browse: Browse
) -> None:
    page, held = browse(cosine_service.url), list[Route]()
    page.route("**/info", lambda route: held.append(route))
    page.reload()
    page.set_input_files("#file", file("sky.png", picture("blue")))
    expect(page.locator("#preview")).to_be_visible(timeout=60_000)
    with page.expect_response(lambda response: "/similar?" in response.url) as searched:
        held[0].continue_()
    assert searched.value.json()["metric"] == page.locator("#metric").input_value() == "cosine"
    expect(page.locator(".card .distance")).to_have_count(10, timeout=60_000)


def metric_of_search(page: Page) -> str:
    """Choose a picture. Returns the metric of its look-alikes, by the answer of the service."""
    with page.expect_response(lambda response: "/similar?" in response.url) as searched:
        page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector(".card .distance")
    return str(searched.value.json()["metric"])


@pytest.mark.browser
def test_a_file_that_is_not_an_image_is_answered_with_what_to_send(page: Page) -> None:
    page.set_input_files("#file", file("notes.txt", b"just some words"))
    page.wait_for_selector("#problem:not([hidden])")
    assert "notes.txt: this is not an image; use JPEG" in page.inner_text("#problem")
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


DISPATCH = """([event, field, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], `${event}.png`, { type: "image/png" }));
    const Class = event === "paste" ? ClipboardEvent : DragEvent;
    document.dispatchEvent(new Class(event, { [field]: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.browser
def test_a_picture_can_be_pasted_or_dropped(page: Page) -> None:
    for event, field, colour in (
        ("paste", "clipboardData", "red"),
        ("drop", "dataTransfer", "green"),
    ):
        page.evaluate(DISPATCH, [event, field, list(picture(colour))])
        expect(page.locator("#status")).to_contain_text(f"{event}.png", timeout=60_000)
        assert page.locator(".card .label").first.inner_text() == colour


@pytest.mark.browser
def test_the_docs_need_no_other_server(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/docs")
    page.wait_for_selector(".opblock")
    assert "/classify" in page.inner_text("#swagger-ui")


@pytest.mark.browser
@pytest.mark.parametrize("has_probe", [True, False])
def test_the_page_offers_the_items_labels_only_if_there_is_a_probe(
    probed_service: Service, service: Service, browse: Browse, has_probe: bool
) -> None:
    page = browse(probed_service.url if has_probe else service.url)
    page.set_input_files("#file", file("sky.png", picture("blue")))
    page.wait_for_selector("#bars li")
    assert page.locator("#by-choice").is_visible() == has_probe
    assert page.locator("#by").input_value() == "classes"
    if has_probe:
        page.select_option("#by", "items")
        expect(page.locator("#status")).to_contain_text("sky.png: blue", timeout=60_000)
        assert page.locator("#bars .name").first.inner_text() == "blue"


@pytest.mark.browser
@pytest.mark.parametrize("unknown", [["blue"], ["red"], ["blue", "green", "red"]])
def test_the_page_names_the_items_labels_unless_the_network_knows_all_of_them(
    run: Run,
    browse: Browse,
    tiny_model: Path,
    own_colour_folder: Path,
    tmp_path: Path,
    unknown: list[str],
) -> None:
    for label in unknown:
        (own_colour_folder / label).rename(own_colour_folder / f"my {label}")
    build(str(own_colour_folder), tiny_model, tmp_path / "index")
    make_probe(tmp_path / "index")
    with run(index=tmp_path / "index") as service:
        page = browse(service.url)
        assert page.locator("#by").input_value() == "items"
        page.set_input_files("#file", file("sky.png", picture("blue")))
        name = "my blue" if "blue" in unknown else "blue"
        expect(page.locator("#status")).to_contain_text(f"sky.png: {name}", timeout=60_000)


def with_a_pink_item(source: Path, tmp_path: Path) -> Path:
    """A copy of an index, with one more item. No other item has its label."""
    index = Path(shutil.copytree(source, tmp_path / "index"))
    (tmp_path / "more" / "pink").mkdir(parents=True)
    coloured("red", 950).save(tmp_path / "more" / "pink" / "0.png")
    add(index, [str(tmp_path / "more")])
    return index


@pytest.mark.browser
def test_a_label_that_was_added_after_the_probe_was_fitted_is_a_label_the_network_does_not_know(
    run: Run, browse: Browse, probed_index: Path, tmp_path: Path
) -> None:
    with run(index=with_a_pink_item(probed_index, tmp_path)) as service:
        info = service.client.get("/info").json()
        assert "pink" not in info["index"]["probe"]["labels"]
        assert "pink" in info["index"]["labels"]
        page = browse(service.url)
        assert page.locator("#by").input_value() == "items"
        page.set_input_files("#file", file("sky.png", picture("blue")))
        expect(page.locator("#status")).to_contain_text("sky.png: blue", timeout=60_000)


@pytest.mark.browser
def test_a_network_with_more_classes_than_the_index_has_labels_knows_the_labels(
    run: Run, browse: Browse, probed_index: Path, tmp_path: Path
) -> None:
    index = Path(shutil.copytree(probed_index, tmp_path / "index"))
    remove(index, labels=["red"])
    with run(index=index) as service:
        page = browse(service.url)
        assert page.locator("#by").input_value() == "classes"


@pytest.mark.browser
def test_without_a_probe_unknown_labels_are_named_by_the_networks_classes(
    run: Run, browse: Browse, tiny_index: Path, tmp_path: Path
) -> None:
    with run(index=with_a_pink_item(tiny_index, tmp_path)) as service:
        page = browse(service.url)
        with page.expect_response(lambda response: "/classify?" in response.url) as classified:
            page.set_input_files("#file", file("sky.png", picture("blue")))
        assert classified.value.json()["by"] == "classes"
        page.wait_for_selector("#bars li")
        assert page.locator("#by-choice").is_hidden()


@pytest.mark.browser
def test_the_examples_come_with_three_requests_at_most(page: Page) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    before = page.locator(".card").evaluate_all("cards => cards.map((card) => card.title)")
    with page.expect_response(lambda response: "/items?" in response.url):
        page.click("#shuffle")
    expect(page.locator(".card")).to_have_count(12)
    listings = [url for url in requested if "/items?" in url]
    assert 1 <= len(listings) <= 3
    assert len(set(before)) == len(before) == 12


@pytest.mark.browser
def test_a_large_picture_is_scaled_down_before_it_is_sent(run: Run, browse: Browse) -> None:
    noise = np.random.default_rng(0).normal(0, 30, (900, 700, 3))
    pixels = np.asarray(coloured("blue", 5).resize((700, 900))) + noise
    large = encoded(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    with run(max_image_bytes=1_000_000, max_request_bytes=2_000_000) as service:
        assert len(large) > service.engine.settings.max_image_bytes
        page = browse(service.url)
        page.set_input_files("#file", file("large.png", large))
        expect(page.locator("#status")).to_contain_text("large.png: ", timeout=60_000)
        assert page.locator(".card .label").first.inner_text() == "blue"


@pytest.mark.browser
def test_labels_are_listed_in_natural_order(
    run: Run, browse: Browse, tiny_model: Path, tmp_path: Path
) -> None:
    for number in (1, 2, 10):
        (tmp_path / "images" / f"label {number}").mkdir(parents=True)
        for seed in (1, 2):
            image = coloured("red", 10 * number + seed)
            image.save(tmp_path / "images" / f"label {number}" / f"{seed}.png")
    build(str(tmp_path / "images"), tiny_model, tmp_path / "index", device="cpu")
    make_map(tmp_path / "index")
    natural = ["label 1", "label 2", "label 10"]
    with run(index=tmp_path / "index") as service:
        page = browse(service.url)
        options = page.locator("#label option").all_inner_texts()
        assert options == ["all labels", *(f"{label} (2)" for label in natural)]
        page.click("#map-toggle")
        expect(page.locator("#map .legend li")).to_have_text(natural, timeout=60_000)
