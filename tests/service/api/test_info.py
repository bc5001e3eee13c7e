"""GET /info and /metrics."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import LIMITS, Run, Service
from tests.service.pictures import picture, upload

NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


def series(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The values of all series, by name and labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_info_names_model_index_limits_and_versions(client: httpx.Client, service: Service) -> None:
    info = client.get("/info").json()
    assert info["model"]["id"] == info["index"]["model"] == service.engine.snapshot.card.id
    assert info["model"]["class_names"] == list(COLOURS)
    assert info["model"]["precision"] == "float32"
    assert info["index"]["num_items"] == NUM_ITEMS
    assert info["index"]["labels"] == dict.fromkeys(COLOURS, NUM_IMAGES_PER_COLOUR)
    assert info["index"]["num_labels"] == len(COLOURS)
    assert (info["index"]["kind"], info["index"]["metrics"]) == ("flat", ["euclidean", "cosine"])
    assert info["index"]["recall_at_10"] == {"euclidean": 1, "cosine": 1}
    assert info["limits"] == LIMITS
    assert {"python", "fastapi", "onnxruntime"} <= info["versions"].keys()


def test_info_lists_the_metrics_that_an_index_supports(
    encoded_service: Service, client: httpx.Client
) -> None:
    def metrics(client: httpx.Client) -> object:
        return client.get("/info").json()["index"]["metrics"]

    assert metrics(encoded_service.client) == ["euclidean", "cosine", "hamming"]
    assert metrics(client) == ["euclidean", "cosine"]


def test_info_says_which_labels_the_probe_knows_and_how_good_it_is(probed_service: Service) -> None:
    probe = probed_service.client.get("/info").json()["index"]["probe"]
    assert probe["labels"] == sorted(COLOURS)
    assert (probe["num_items"], probe["accuracy"], probe["vote_euclidean"]) == (18, 1, 1)
    assert probe["chance"] == pytest.approx(1 / 3)


def test_info_says_which_distance_ranks_better(
    cosine_service: Service, client: httpx.Client
) -> None:
    assert cosine_service.client.get("/info").json()["index"]["better_metric"] == "cosine"
    assert client.get("/info").json()["index"]["better_metric"] is None


def test_info_says_whether_there_is_a_map(mapped_service: Service, client: httpx.Client) -> None:
    index = mapped_service.client.get("/info").json()["index"]
    assert index["map"] == {"num_items": NUM_ITEMS, "commit": index["commit"] - 1}
    assert client.get("/info").json()["index"]["map"] is None


def test_metrics_count_requests_batches_and_problems(run: Run) -> None:
    with run() as service:
        client = service.client
        for _ in range(3):
            assert client.post("/similar", files=upload(picture())).status_code == 200
        assert client.post("/similar", files=upload(b"words")).status_code == 415
        for address in ("/nothing/1", "/nothing/2", "/items/1", "/items/2"):
            client.get(address)
        values = series(client)
    similar = [("method", "POST"), ("path", "/similar")]
    assert values["lookalike_requests_total", (*similar, ("status", "200"))] == 3
    assert values["lookalike_requests_total", (*similar, ("status", "415"))] == 1
    assert values["lookalike_request_seconds_count", (("path", "/similar"),)] == 4
    assert values["lookalike_request_seconds_count", (("path", "/items/{id}"),)] == 2
    assert values["lookalike_request_seconds_count", (("path", "other"),)] == 2
    assert values["lookalike_refused_requests_total", (("problem", "not-an-image"),)] == 1
    assert values["lookalike_batch_images_sum", (("stage", "network"),)] == 3
    assert values["lookalike_batch_images_sum", (("stage", "decode"),)] == 4
    assert values["lookalike_wait_seconds_count", (("stage", "search"),)] == 3
    assert values["lookalike_waiting_images", ()] == 0
    assert values["lookalike_index_items", ()] == NUM_ITEMS
    assert values["process_resident_memory_bytes", ()] > 1e6
