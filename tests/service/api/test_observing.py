"""The header Server-Timing, and the routes under which requests are counted."""

import re
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import BrokenEmbedder, Run
from tests.service.figures import figure, figures
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


def test_a_crash_is_counted_as_an_internal_error(run: Run, tiny_model: Path) -> None:
    with run(embedder=BrokenEmbedder(tiny_model)) as service:
        client = service.client
        assert client.post("/classify", files=upload(picture())).status_code == 500
        labels = {"path": "/classify", "method": "POST", "status": "500"}
        assert figure(client, "requests_total", **labels) == 1
        assert figure(client, "refused_requests_total", problem="internal-error") == 1


def test_requests_that_are_refused_early_are_counted_under_their_routes(run: Run) -> None:
    with run(read_key="key") as service:
        client = service.client
        client.get("/items/1")
        headers = {"X-Request-Timeout": "soon"}
        client.post("/similar", files=upload(picture()), headers=headers)
        client.headers["Authorization"] = "Bearer key"
        for path, method, status in (("/items/{id}", "GET", "401"), ("/similar", "POST", "422")):
            labels = {"path": path, "method": method, "status": status}
            assert figure(client, "requests_total", **labels) == 1
        assert figure(client, "refused_requests_total", problem="unauthorized") == 1
        assert figure(client, "refused_requests_total", problem="invalid-request") == 1


def test_clients_cannot_make_up_new_series(run: Run) -> None:
    with run() as service:
        client = service.client
        client.get("/livez")
        count = sum(map(len, figures(client).values()))
        for number in range(20):
            client.get(f"/nothing/{number}")
            client.request(f"METHOD{number}", f"/items/{number}/{number}")
            client.get(f"/web/{number}")
        assert figure(client, "requests_total", path="other", status="404") >= 40
        added = sum(map(len, figures(client).values())) - count
        assert added < 60  # a histogram has 16 series
