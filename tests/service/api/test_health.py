"""GET /livez, /readyz and /info."""

import httpx
import pytest

from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import LIMITS, Service

NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


def test_a_running_service_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_info_names_model_index_limits_and_versions(client: httpx.Client, service: Service) -> None:
    info = client.get("/info").json()
    assert info["model"]["id"] == info["index"]["model"] == service.engine.card.id
    assert info["model"]["class_names"] == list(COLOURS)
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
