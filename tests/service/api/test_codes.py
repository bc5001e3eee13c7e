"""POST /similar?metric=hamming: the nearest by code, reranked or not."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.manifest import read_manifest
from indexer.storage.writer import IndexWriter
from tests.service.conftest import Run, Service
from tests.service.pictures import picture, problem, upload

ENCODER = Encoder(
    CodeFacts(num_bits=64, num_fitted=18, seed=0, commit=1, loss=(1.0,)),
    np.random.default_rng(0).standard_normal((64, 4096), np.float32),
    np.zeros(64, np.float32),
)


@pytest.fixture(scope="module")
def encoded_index(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("encoded") / "index"))
    with IndexWriter.open(directory) as writer:
        writer.write_codes(ENCODER)
        writer.commit()
    return directory


@pytest.fixture(scope="module")
def encoded(run: Run, encoded_index: Path) -> Iterator[Service]:
    with run(index=encoded_index) as running:
        yield running


def matches_of(service: Service, address: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    answer = service.client.post(address, files=upload(picture("red"))).json()
    return answer, answer["results"][0]["matches"]


def test_reranked_codes_find_the_euclidean_neighbours_of_a_small_index(encoded: Service) -> None:
    answer, by_code = matches_of(encoded, "/similar?metric=hamming&k=10")
    assert (answer["metric"], answer["rerank"]) == ("hamming", 2000)
    exact, euclidean = matches_of(encoded, "/similar?k=10")
    assert exact["rerank"] is None
    assert by_code == euclidean


def test_codes_alone_rank_by_the_bits_that_differ(encoded: Service) -> None:
    answer, by_code = matches_of(encoded, "/similar?metric=hamming&rerank=0&k=10")
    assert answer["rerank"] == 0
    distances = [match["distance"] for match in by_code]
    assert distances == sorted(distances)
    assert all(distance == int(distance) <= 64 for distance in distances)


def test_a_lookup_by_address_finds_the_nearest_too(encoded: Service) -> None:
    _, scanned = matches_of(encoded, "/similar?metric=hamming&rerank=0&k=3")
    _, looked_up = matches_of(encoded, "/similar?metric=hamming&rerank=0&k=3&flips=4")
    assert looked_up == scanned


def test_a_label_is_kept_to(encoded: Service) -> None:
    _, found = matches_of(encoded, "/similar?metric=hamming&label=blue&k=10")
    assert len(found) == 6
    assert all(match["label"] == "blue" for match in found)


def test_info_says_what_an_index_can_be_searched_by(encoded: Service, client: httpx.Client) -> None:
    assert encoded.client.get("/info").json()["index"]["metrics"] == [
        "euclidean",
        "cosine",
        "hamming",
    ]
    assert client.get("/info").json()["index"]["metrics"] == ["euclidean", "cosine"]


@pytest.mark.parametrize(
    "query",
    [
        "rerank=5",
        "metric=cosine&rerank=0",
        "metric=hamming&rerank=-1",
        "metric=hamming&rerank=10001",
    ],
)
def test_a_rerank_that_means_nothing_is_refused(encoded: Service, query: str) -> None:
    detail = problem(
        encoded.client.post(f"/similar?{query}", files=upload(picture())), 422, "invalid-request"
    )["detail"]
    assert "rerank" in detail


@pytest.mark.parametrize("query", ["flips=1", "metric=hamming&flips=5", "metric=hamming&flips=-1"])
def test_flips_that_mean_nothing_are_refused(encoded: Service, query: str) -> None:
    detail = problem(
        encoded.client.post(f"/similar?{query}", files=upload(picture())), 422, "invalid-request"
    )["detail"]
    assert "flips" in detail


def test_damaged_codes_leave_the_other_distances(
    encoded_index: Path, tmp_path: Path, run: Run
) -> None:
    damaged = Path(shutil.copytree(encoded_index, tmp_path / "index"))
    (damaged / read_manifest(damaged).files["codes"].file).write_bytes(b"")
    with run(index=damaged) as service:
        assert service.client.post("/similar", files=upload(picture())).status_code == 200
        problem(
            service.client.post("/similar?metric=hamming", files=upload(picture())),
            422,
            "unavailable-metric",
        )
