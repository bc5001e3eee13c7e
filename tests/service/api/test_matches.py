"""Searches and matches as the API has them."""

import asyncio

import pytest
from starlette.requests import Request

from indexer.errors import UnknownLabelError
from service.api.matches import resolved, searched, similar_items
from service.api.schemas import ItemSimilarQuery
from service.snapshot import Search
from tests.service.conftest import Service


def test_a_query_becomes_a_search_with_its_defaults(encoded_service: Service) -> None:
    snapshot = encoded_service.engine.snapshot

    def search(**options: object) -> Search:
        return asyncio.run(resolved(snapshot, ItemSimilarQuery.model_validate(options)))

    assert search() == Search(k=6)
    assert search(label=["red", "", "red"]).labels == ("red",)
    assert search(metric="hamming").rerank == 2000
    assert search(metric="hamming", rerank=0, flips=2) == Search(
        k=6, metric="hamming", rerank=0, flips=2
    )
    with pytest.raises(UnknownLabelError):
        search(label=["red", "purple"])


def test_an_answer_names_what_was_searched(service: Service) -> None:
    snapshot = service.engine.snapshot
    fields = searched(snapshot, Search(k=6, metric="cosine"))
    assert fields == {
        "model": snapshot.card.id,
        "index": snapshot.index.directory.name,
        "commit": snapshot.index.manifest.commit,
        "metric": "cosine",
        "rerank": None,
    }


def test_a_match_has_the_address_of_its_thumbnail_under_the_root_path(service: Service) -> None:
    snapshot = service.engine.snapshot
    features = snapshot.index.features[snapshot.index.rows[:1]]
    (matches,) = snapshot.search(features, Search(k=1))
    (item,) = similar_items(Request({"type": "http", "root_path": "/photos"}), matches)
    assert (item.id, item.path) == (matches[0].item.id, matches[0].item.path)
    assert item.thumbnail.startswith(f"/photos/items/{item.id}/thumbnail?v=")
