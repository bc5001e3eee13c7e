"""Every error is answered with a problem, whatever raised it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from indexer.metrics import HammingOnlyError
from indexer.opening import NoProbeError
from service.api.problems import PROBLEMS, ProblemError
from service.batching import Overloaded
from tests.service.conftest import BrokenEmbedder, HeldEmbedder, Run
from tests.service.pictures import detail_of, picture, problem, upload, wait_until


@pytest.mark.parametrize(
    "address",
    ["/nothing", "/web/nothing.js", "/web/../app.py", "/items/1/nothing", "/docs/static/nothing"],
)
def test_an_unknown_address_is_not_found(client: httpx.Client, address: str) -> None:
    assert "/docs" in detail_of(client.get(address), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [("GET", "/classify", "POST"), ("DELETE", "/items/1", "GET"), ("POST", "/", "GET")],
)
def test_a_wrong_method_is_refused_with_the_right_one(
    client: httpx.Client, method: str, address: str, allowed: str
) -> None:
    response = client.request(method, address)
    assert allowed in detail_of(response, 405, "method-not-allowed")
    assert allowed in response.headers["allow"]


def test_a_failure_is_a_problem_that_keeps_its_reason_to_the_log(
    run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with run(embedder=BrokenEmbedder(tiny_model)) as service:
        response = service.client.post("/classify", files=upload(picture()))
        assert "log" in detail_of(response, 500, "internal-error")
        assert "secret" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "/classify" in caplog.text
        assert httpx.get(f"{service.url}/livez", timeout=60).status_code == 200


def test_no_problem_of_a_request_is_a_server_error() -> None:
    server_errors = {type for type, (status, _) in PROBLEMS.items() if status >= 500}
    assert server_errors == {"draining", "internal-error"}


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


def test_retry_after_is_the_time_that_the_batcher_estimates() -> None:
    error = ProblemError.of(Overloaded(num_waiting=128, max_waiting=128, retry_s=17))
    assert error.headers == {"Retry-After": "17"}
    assert error.problem().status == 429
    assert "17 s" in error.problem().detail


def test_the_text_of_an_error_of_the_index_is_sent_without_its_directory() -> None:
    problem = ProblemError.of(NoProbeError(Path("/srv/secret/index"))).problem()
    assert (problem.type, problem.status) == ("urn:lookalike:problem:no-probe", 422)
    assert "secret" not in problem.detail


def test_an_option_for_hamming_only_is_an_invalid_request() -> None:
    problem = ProblemError.of(HammingOnlyError("rerank", 5, "cosine")).problem()
    assert (problem.type, problem.status) == ("urn:lookalike:problem:invalid-request", 422)
    assert "rerank=5" in problem.detail


def test_openapi_documents_the_problems(client: httpx.Client) -> None:
    responses = client.get("/openapi.json").json()["paths"]["/similar"]["post"]["responses"]
    assert {"200", "400", "413", "415", "422", "429"} <= responses.keys()
    for status, response in responses.items():
        if status != "200":
            assert list(response["content"]) == ["application/problem+json"]
