"""GET /items/{id}/similar, compared with the distances between the features of the index."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.indexer.items import made_up_item
from tests.service.conftest import ENCODER, Run, Service
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


@pytest.fixture(scope="module")
def doubles(run: Run, copy_index: Callable[[str], Path]) -> Iterator[Service]:
    """A service on an index in which each of the first two items is there five times more.

    Item 1 is older than its doubles, and item 2 is younger.
    """
    directory = copy_index("doubles")
    index = Index.open(directory)
    with IndexWriter.open(directory) as writer:
        for number in range(10):
            row = index.rows_of_ids([1 + number % 2])[0]
            item = made_up_item(number, index.features[row].copy())
            writer.add(replace(item, sha256=f"{1000 + number:064}"))
        writer.write_codes(ENCODER)
        writer.commit()
    with run(index=directory) as running:
        yield running


@pytest.mark.parametrize("options", ["", "&metric=cosine", "&metric=hamming"])
@pytest.mark.parametrize("k", [1, 4, 5, 6])
@pytest.mark.parametrize("id", [1, 2, 19, 23, 24, 28])
def test_the_doubles_of_an_item_are_found_but_not_the_item(
    doubles: Service, id: int, k: int, options: str
) -> None:
    """Even if there are more doubles than matches, and the item is not the first of them."""
    answer = doubles.client.get(f"/items/{id}/similar?k={k}{options}").json()
    found = [match["id"] for match in answer["matches"]]
    groups = {1, *range(19, 29, 2)}, {2, *range(20, 29, 2)}
    (same,) = [group - {id} for group in groups if id in group]
    assert len(set(found)) == k
    assert set(found[:5]) <= same
    assert id not in found


def test_the_item_is_left_out_if_other_items_have_the_same_code(doubles: Service) -> None:
    for id in (1, 2, 19, 28):
        answer = doubles.client.get(f"/items/{id}/similar?k=3&metric=hamming&rerank=0").json()
        assert [match["distance"] for match in answer["matches"]] == [0] * 3
        assert id not in [match["id"] for match in answer["matches"]]


@pytest.mark.parametrize("label", ["red", "green"])
def test_a_search_by_codes_leaves_the_item_out_within_a_label(
    encoded_service: Service, label: str
) -> None:
    (item,) = encoded_service.engine.snapshot.index.items(label="red", limit=1)
    query = f"/items/{item.id}/similar?k=10&metric=hamming&rerank=0&label={label}"
    matches = encoded_service.client.get(query).json()["matches"]
    assert item.id not in [match["id"] for match in matches]
    assert len(matches) == NUM_IMAGES_PER_COLOUR - (label == "red")
