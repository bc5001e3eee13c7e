"""GET /items/{id}/similar, compared with the distances between the features of the index."""

import httpx
import numpy as np
import pytest

from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import Service
from tests.service.pictures import detail_of, problem

NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_items_come_first_without_the_item_itself(
    service: Service, metric: str
) -> None:
    index = service.engine.snapshot.index
    features = index.features[index.rows].astype(np.float64)
    if metric == "cosine":
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    for position in (0, 7, NUM_ITEMS - 1):
        id = int(index.ids[position])
        answer = service.client.get(f"/items/{id}/similar?k=5&metric={metric}").json()
        assert (answer["metric"], answer["commit"]) == (metric, index.manifest.commit)
        distances = np.linalg.norm(features - features[position], axis=1)
        if metric == "cosine":
            distances = distances**2 / 2
        distances[position] = np.inf
        found = [match["distance"] for match in answer["matches"]]
        np.testing.assert_allclose(found, np.sort(distances)[:5], atol=1e-3)
        assert id not in [match["id"] for match in answer["matches"]]


def test_codes_find_the_same_items_on_a_small_index(encoded_service: Service) -> None:
    id = int(encoded_service.engine.snapshot.index.ids[3])
    by_code = encoded_service.client.get(f"/items/{id}/similar?k=4&metric=hamming").json()
    euclidean = encoded_service.client.get(f"/items/{id}/similar?k=4").json()
    assert by_code["rerank"] == 2000
    assert by_code["matches"] == euclidean["matches"]


def test_all_other_items_are_found_if_k_is_large_enough(service: Service) -> None:
    id = int(service.engine.snapshot.index.ids[0])
    matches = service.client.get(f"/items/{id}/similar?k=10&label=red&label=blue").json()["matches"]
    assert len(matches) == 10
    assert {match["label"] for match in matches} <= {"red", "blue"}


def test_a_label_that_the_item_does_not_have_gives_only_items_with_the_label(
    service: Service,
) -> None:
    (item,) = service.engine.snapshot.index.items(label="red", limit=1)
    matches = service.client.get(f"/items/{item.id}/similar?k=10&label=green").json()["matches"]
    assert [match["label"] for match in matches] == ["green"] * NUM_IMAGES_PER_COLOUR


def test_an_answer_says_how_long_the_search_took(client: httpx.Client, service: Service) -> None:
    id = int(service.engine.snapshot.index.ids[0])
    header = client.get(f"/items/{id}/similar").headers["server-timing"]
    assert "search;dur=" in header
    assert "network" not in header


def test_an_unknown_item_and_wrong_options_are_refused(client: httpx.Client) -> None:
    problem(client.get("/items/9999/similar"), 404, "unknown-item")
    assert "k:" in detail_of(client.get("/items/1/similar?k=11"), 422, "invalid-request")
    problem(client.get("/items/1/similar?label=purple"), 422, "unknown-label")
    problem(client.get("/items/1/similar?metric=hamming"), 422, "unavailable-metric")
    problem(client.get("/items/1/similar?strict=true"), 422, "invalid-request")
