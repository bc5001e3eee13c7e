"""Every error is answered with a problem, whatever raised it."""

import logging
from pathlib import Path

import httpx
import pytest

from indexer.errors import NoProbeError
from indexer.metrics import HammingOnlyError
from service.admission import Overloaded
from service.api.problems import PROBLEMS, ProblemError, not_ready
from tests.service.conftest import BrokenEmbedder, Run
from tests.service.pictures import detail_of, picture, upload


@pytest.mark.parametrize(
    "address",
    ["/nothing", "/web/nothing.js", "/web/../app.py", "/items/1/nothing", "/docs/static/nothing"],
)
def test_an_unknown_address_is_not_found(client: httpx.Client, address: str) -> None:
    assert "/docs" in detail_of(client.get(address), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [("GET", "/classify", "POST"), ("PUT", "/items/1", "GET"), ("POST", "/", "GET")],
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
    assert server_errors == {"draining", "not-ready", "index-busy", "internal-error"}


def test_a_service_that_is_not_ready_says_when_to_come_back() -> None:
    error = not_ready()
    assert error.problem().status == 503
    assert error.headers == {"Retry-After": "10"}


def test_retry_after_is_the_time_of_the_admission() -> None:
    error = ProblemError.of(Overloaded("128 images are waiting", retry_s=17))
    assert error.headers == {"Retry-After": "17"}
    assert error.problem().status == 429
    assert error.problem().detail == "128 images are waiting; try again in 17 s"


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
