"""The header Server-Timing, and the routes under which requests are counted."""

import re

import httpx
import pytest

from tests.service.pictures import picture, upload


def timings_ms(response: httpx.Response) -> dict[str, float]:
    header = response.headers["server-timing"]
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("/classify", {"decode", "network"}),
        ("/features", {"decode", "network"}),
        ("/similar", {"decode", "network", "search"}),
    ],
)
def test_an_answer_says_how_long_each_stage_took(
    client: httpx.Client, path: str, stages: set[str]
) -> None:
    timings = timings_ms(client.post(path, files=upload(picture(), picture())))
    assert timings.keys() == stages | {"wait", "total"}
    assert 0 < timings["network"] < timings["total"]
    assert sum(timings[stage] for stage in stages) <= timings["total"] + 1


def test_the_times_of_a_numpy_answer_are_sent_too(client: httpx.Client) -> None:
    headers = {"Accept": "application/x-npy"}
    response = client.post("/features", files=upload(picture()), headers=headers)
    assert timings_ms(response)["network"] > 0


def test_an_answer_without_images_has_no_times(client: httpx.Client) -> None:
    assert "server-timing" not in client.get("/info").headers
