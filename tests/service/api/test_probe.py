"""POST /classify?by=items: answers with the labels of the indexed items."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from indexer.learned.probe import make
from tests.conftest import COLOURS
from tests.service.conftest import Browse, Run, Service
from tests.service.pictures import picture, problem, upload


@pytest.fixture(scope="module")
def probed(
    run: Run, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    directory = Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("probed") / "index"))
    make(directory)
    with run(index=directory) as running:
        yield running


def test_by_items_names_the_colour_that_an_untrained_network_cannot(probed: Service) -> None:
    for colour in COLOURS:
        answer = probed.client.post("/classify?by=items", files=upload(picture(colour))).json()
        assert answer["by"] == "items"
        classes = answer["results"][0]["classes"]
        assert classes[0]["name"] == colour
        assert classes[0]["index"] == sorted(COLOURS).index(colour)
        assert sum(one["probability"] for one in classes) == pytest.approx(1)


def test_k_bounds_the_labels_too(probed: Service) -> None:
    (result,) = probed.client.post("/classify?by=items&k=1", files=upload(picture())).json()[
        "results"
    ]
    assert len(result["classes"]) == 1


def test_without_by_the_networks_classes_answer_as_ever(
    probed: Service, client: httpx.Client
) -> None:
    answers = [
        one.post(address, files=upload(picture())).json()
        for one in (probed.client, client)
        for address in ("/classify", "/classify?by=classes")
    ]
    assert all(answer["by"] == "classes" for answer in answers)
    names = [[one["name"] for one in answer["results"][0]["classes"]] for answer in answers]
    assert names == [names[0]] * 4


def test_an_index_without_a_probe_says_how_to_fit_one(client: httpx.Client) -> None:
    detail = problem(client.post("/classify?by=items", files=upload(picture())), 422, "no-probe")[
        "detail"
    ]
    assert "lookalike index probe" in detail
    assert client.get("/info").json()["index"]["probe"] is None


def test_an_unknown_by_is_refused(client: httpx.Client) -> None:
    detail = problem(
        client.post("/classify?by=labels", files=upload(picture())), 422, "invalid-request"
    )["detail"]
    assert "'classes' or 'items'" in detail


def test_info_tells_what_the_probe_knows_and_how_good_it_is(probed: Service) -> None:
    probe = probed.client.get("/info").json()["index"]["probe"]
    assert probe["labels"] == sorted(COLOURS)
    assert (probe["num_items"], probe["accuracy"], probe["vote_euclidean"]) == (18, 1, 1)
    assert probe["chance"] == pytest.approx(1 / 3)


@pytest.mark.browser
@pytest.mark.parametrize("has_probe", [True, False])
def test_the_page_lets_choose_only_where_there_is_a_probe(
    probed: Service, service: Service, browse: Browse, has_probe: bool
) -> None:
    page = browse(probed.url if has_probe else service.url)
    page.set_input_files(
        "#file", {"name": "sky.png", "mimeType": "image/png", "buffer": picture("blue")}
    )
    page.wait_for_selector("#bars li")
    assert page.locator("#by-choice").is_visible() == has_probe
    if has_probe:
        page.select_option("#by", "items")
        expect(page.locator("#status")).to_contain_text("sky.png: blue", timeout=60_000)
        assert page.locator("#bars .name").first.inner_text() == "blue"
