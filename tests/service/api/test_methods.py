"""The header Allow names all methods of an address."""

import httpx
import pytest

from tests.service.pictures import detail_of


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("/items", "GET, HEAD, POST"),
        ("/items/1", "GET, HEAD, DELETE"),
        ("/items/1/similar", "GET, HEAD"),
        ("/classify", "POST"),
        ("/", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/web/app.js", "GET, HEAD"),
        ("/docs/static/swagger-ui.css", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_answered_with_all_that_the_address_accepts(
    client: httpx.Client, address: str, allowed: str
) -> None:
    response = client.put(address)
    assert f"accepts only {allowed};" in detail_of(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allowed


def test_the_methods_are_the_same_under_the_path_of_a_proxy(client: httpx.Client) -> None:
    response = client.put("/items", headers={"X-Forwarded-Prefix": "/lookalike"})
    assert response.headers["allow"] == "GET, HEAD, POST"


def test_a_head_request_that_is_refused_names_the_methods_too(client: httpx.Client) -> None:
    response = client.head("/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
