"""Every error is a problem document, whoever raises it."""

import logging
from pathlib import Path

import httpx
import pytest

from service.api.problems import KINDS
from tests.service.conftest import BrokenEmbedder, Run
from tests.service.pictures import picture, problem, upload


@pytest.mark.parametrize(
    "address",
    ["/nothing", "/web/nothing.js", "/web/../app.py", "/items/1/nothing", "/docs/static/nothing"],
)
def test_an_unknown_address_is_not_found(client: httpx.Client, address: str) -> None:
    assert "/docs" in problem(client.get(address), 404, "not-found")["detail"]


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [("GET", "/classify", "POST"), ("DELETE", "/items/1", "GET"), ("POST", "/", "GET")],
)
def test_a_wrong_method_is_refused_with_the_right_one(
    client: httpx.Client, method: str, address: str, allowed: str
) -> None:
    response = client.request(method, address)
    assert allowed in problem(response, 405, "method-not-allowed")["detail"]
    assert allowed in response.headers["allow"]


def test_a_failure_is_a_problem_that_keeps_its_reason_to_the_log(
    run: Run, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with run(embedder=BrokenEmbedder(tiny_model)) as service:
        response = service.client.post("/classify", files=upload(picture()))
        found = problem(response, 500, "internal-error")
        assert "secret" not in response.text
        assert "log" in found["detail"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "/classify" in caplog.text
        assert httpx.get(f"{service.url}/livez", timeout=60).status_code == 200


def test_no_problem_of_a_request_is_a_server_error() -> None:
    assert {kind for kind, (status, _) in KINDS.items() if status >= 500} == {
        "draining",
        "internal-error",
    }


def test_openapi_documents_the_problems(client: httpx.Client) -> None:
    responses = client.get("/openapi.json").json()["paths"]["/similar"]["post"]["responses"]
    assert {"200", "400", "413", "415", "422", "429"} <= responses.keys()
    for status, response in responses.items():
        if status != "200":
            assert list(response["content"]) == ["application/problem+json"]
