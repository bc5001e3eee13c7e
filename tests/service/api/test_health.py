"""GET /livez, /readyz and /info; overload and draining."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import LIMITS, HeldEmbedder, Run, Service
from tests.service.pictures import picture, problem, upload, wait_until


def test_a_running_service_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_info_names_model_index_limits_and_versions(client: httpx.Client, service: Service) -> None:
    info = client.get("/info").json()
    assert info["model"]["id"] == info["index"]["model"] == service.engine.card.id
    assert info["model"]["class_names"] == list(COLOURS)
    assert info["index"]["num_items"] == len(COLOURS) * NUM_IMAGES_PER_COLOUR
    assert info["index"]["labels"] == dict.fromkeys(COLOURS, NUM_IMAGES_PER_COLOUR)
    assert info["index"]["num_labels"] == len(COLOURS)
    assert (info["index"]["kind"], info["index"]["metrics"]) == ("flat", ["euclidean", "cosine"])
    assert info["index"]["recall_at_10"] == {"euclidean": 1, "cosine": 1}
    assert info["limits"] == LIMITS
    assert {"python", "fastapi", "onnxruntime"} <= info["versions"].keys()


def test_overload_is_429_and_says_when_to_come_back(run: Run, tiny_model: Path) -> None:
    embedder = HeldEmbedder(tiny_model)
    with (
        run(embedder=embedder, max_images=1, max_waiting=2) as service,
        ThreadPoolExecutor(2) as threads,
    ):
        try:
            taken = [
                threads.submit(service.client.post, "/classify", files=upload(picture()))
                for _ in range(2)
            ]
            wait_until(lambda: service.engine.batcher.num_waiting == 2)
            refused = service.client.post("/classify", files=upload(picture()))
            problem(refused, 429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert service.client.get("/livez").status_code == 200
        finally:
            embedder.may_go_on.set()
        assert [response.result().status_code for response in taken] == [200, 200]
        assert service.client.post("/classify", files=upload(picture())).status_code == 200


def test_a_service_asked_to_stop_turns_away_but_finishes_what_it_has_begun(
    run: Run, tiny_model: Path
) -> None:
    embedder = HeldEmbedder(tiny_model)
    with run(embedder=embedder, drain_s=1.0) as service, ThreadPoolExecutor(1) as threads:
        try:
            begun = threads.submit(service.client.post, "/classify", files=upload(picture()))
            assert embedder.has_begun.wait(60)
            service.server.should_exit = True
            wait_until(lambda: service.engine.is_draining)
            problem(service.client.get("/readyz"), 503, "draining")
        finally:
            embedder.may_go_on.set()
        assert begun.result().status_code == 200
