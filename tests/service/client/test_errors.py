"""Errors that say what happened on one line."""

import pickle

import httpx
import pytest

from service.client.answers import Problem
from service.client.errors import (
    ServiceError,
    foreign_error,
    no_answer_error,
    service_error,
)
from tests.service.client.fakes import page, problem

REQUEST = httpx.Request("POST", "http://photos.example/similar?label=secret")


def received(response: httpx.Response) -> httpx.Response:
    response.request = REQUEST
    return response


def failed(error: type[httpx.RequestError], text: str = "the reason") -> httpx.RequestError:
    return error(text, request=REQUEST)


def test_an_error_has_the_fields_of_the_problem() -> None:
    error = service_error(received(problem("empty", 400, "a.png: the file is empty", "a.png")))
    assert (error.type, error.title, error.status) == ("empty", "The title", 400)
    assert str(error) == error.detail == "a.png: the file is empty"
    assert error.filename == "a.png"


def test_a_problem_of_another_server_needs_no_fields() -> None:
    response = httpx.Response(
        429, json={}, headers={"Content-Type": "Application/Problem+JSON; charset=utf-8"}
    )
    error = service_error(received(response))
    assert (error.type, error.status, str(error)) == ("about:blank", 429, "Too Many Requests")


def test_the_status_is_that_of_the_response() -> None:
    response = problem("empty", 400)
    response.status_code = 502
    assert service_error(received(response)).status == 502


@pytest.mark.parametrize("content", [b"", b"[]", b'"text"', b"{", b'{"status": "x"}', b"\xff"])
def test_a_problem_that_cannot_be_read_is_not_an_answer_of_the_service(content: bytes) -> None:
    headers = {"Content-Type": "application/problem+json"}
    error = service_error(received(httpx.Response(400, content=content, headers=headers)))
    assert error.type == "about:blank"
    assert "but not as Lookalike does" in str(error)


def test_a_page_of_a_proxy_is_described() -> None:
    error = service_error(received(page(502)))
    assert (error.type, error.title, error.status) == ("about:blank", "Bad Gateway", 502)
    assert str(error) == (
        "http://photos.example/similar answered 502 Bad Gateway (text/html), but not as Lookalike "
        "does; a proxy may have answered; check the URL, and that the service runs"
    )


def test_a_redirect_names_its_target() -> None:
    error = foreign_error(received(page(308, location="https://photos.example/similar")))
    assert "redirects to https://photos.example/similar" in str(error)


def test_an_error_is_one_printable_line() -> None:
    error = ServiceError(Problem(detail="first\nsecond\x1b[31m"))
    assert str(error) == "first second\\x1b[31m"


def test_an_error_survives_pickling() -> None:
    error = ServiceError(Problem(type="empty", status=400, detail="the file is empty"))
    again = pickle.loads(pickle.dumps(error))
    assert again.problem == error.problem


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            failed(httpx.ConnectError),
            "cannot connect to http://photos.example/similar (the reason)",
        ),
        (failed(httpx.ConnectTimeout), "cannot connect to http://photos.example/similar"),
        (failed(httpx.ReadTimeout), "did not answer in time (the reason)"),
        (failed(httpx.ReadError, ""), "failed before the answer was complete (ReadError)"),
    ],
)
def test_an_error_without_an_answer_says_what_failed(error: httpx.RequestError, text: str) -> None:
    message = str(no_answer_error(error))
    assert text in message
    assert "secret" not in message
