"""How calls are sent, and how their answers are read."""

import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from indexer.learned.probe import By
from indexer.metrics import QueryMetric
from service.client import ServiceError, calls
from service.client.calls import Call
from tests.service.client.fakes import PNG, URL, images

FEATURE = np.arange(4096, dtype=np.float32)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def request_of(call: Call[Any]) -> httpx.Request:
    with httpx.Client(base_url=URL) as http:
        return call.request(http)


def answered(call: Call[Any], content: bytes, **headers: str) -> Any:
    """The answer of a call to a response with this content."""
    response = httpx.Response(200, content=content, headers=headers)
    response.request = request_of(call)
    return call.answer(response)


def test_the_words_of_the_options_are_those_of_the_index() -> None:
    assert calls.By == By
    assert calls.Metric == QueryMetric


def test_options_are_sent_in_the_address() -> None:
    params = calls.search_params(3, metric="hamming", label=["a b", "é&"], rerank=0)
    request = request_of(calls.similar(PNG, params))
    assert request.url.params.multi_items() == [
        ("k", "3"),
        ("metric", "hamming"),
        ("label", "a b"),
        ("label", "é&"),
        ("rerank", "0"),
    ]


def test_one_label_is_one_parameter() -> None:
    request = request_of(calls.items("red", 10, 20))
    assert str(request.url) == f"{URL}/items?label=red&limit=10&offset=20"


def test_the_images_are_sent_in_order() -> None:
    request = request_of(calls.classify([("a.png", b"one"), b"two\r\n--"], 5, "classes"))
    assert images(request) == [("a.png", b"one"), ("image 2", b"two\r\n--")]


def test_every_request_has_a_new_body() -> None:
    call = calls.classify(("a.png", PNG), 5, "classes")
    first, second = request_of(call), request_of(call)
    assert first.stream is not second.stream
    assert images(first) == images(second) == [("a.png", PNG)]


@pytest.mark.parametrize(
    ("call", "is_repeatable"),
    [
        (calls.classify(PNG, 5, "classes"), True),
        (calls.similar(PNG, {}), True),
        (calls.features(PNG), True),
        (calls.items(None, 100, 0), True),
        (calls.add(PNG, None, None), False),
        (calls.remove(7), False),
    ],
)
def test_calls_that_change_nothing_are_repeatable(call: Call[Any], is_repeatable: bool) -> None:
    assert call.is_repeatable is is_repeatable


def test_no_images_have_no_answers() -> None:
    assert calls.classify([], 5, "classes").known == []
    assert calls.add([], None, None).known == []
    features = calls.features([]).known
    assert features is not None
    assert features.shape == (0, 4096)
    assert features.dtype == np.float32


def test_features_are_asked_for_as_an_array() -> None:
    call = calls.features([PNG, PNG])
    assert request_of(call).headers["Accept"].startswith("application/x-npy")
    features = answered(call, npy(np.stack([FEATURE, FEATURE + 1])))
    np.testing.assert_array_equal(features, [FEATURE, FEATURE + 1])
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"PK\x03\x04",
        npy(np.stack([FEATURE, FEATURE])),
        npy(FEATURE),
        npy(FEATURE[None].astype(np.float64)),
        npy(FEATURE[None])[:-1],
        npy(np.array([[{}]], dtype=object)),
    ],
)
def test_other_arrays_are_not_features(content: bytes) -> None:
    with pytest.raises(ServiceError, match="not as Lookalike does"):
        answered(calls.features(PNG), content)


@pytest.mark.parametrize(
    ("call", "content"),
    [
        (calls.info(), b"<html>"),
        (calls.info(), b"{}"),
        (calls.item(7), b"[]"),
        (calls.thumbnail(7), b"<html>"),
        (calls.classify(PNG, 5, "classes"), b'{"results": []}'),
        (calls.classify(PNG, 5, "classes"), b'{"results": [{"filename": "a"}]}'),
        (calls.classify([PNG, PNG], 5, "classes"), b'{"results": [{"classes": []}]}'),
        (calls.similar(PNG, {}), b'{"results": [{"classes": []}]}'),
    ],
)
def test_an_answer_of_another_server_is_an_error(call: Call[Any], content: bytes) -> None:
    with pytest.raises(ServiceError, match="answered 200 OK") as raised:
        answered(call, content, **{"Content-Type": "text/html"})
    assert raised.value.type == "about:blank"


@pytest.mark.parametrize("make", [calls.item, calls.thumbnail, calls.remove])
def test_an_id_must_be_a_number(make: Callable[[Any], Call[Any]]) -> None:
    with pytest.raises(ValueError, match="format"):
        make("../info")


def test_a_problem_in_the_place_of_a_single_answer_is_raised() -> None:
    result = b'{"results": [{"filename": "a", "problem": {"type": "empty", "status": 400}}]}'
    with pytest.raises(ServiceError) as raised:
        answered(calls.classify(PNG, 5, "classes"), result)
    assert raised.value.status == 400


def test_readiness_depends_on_the_status_and_on_the_content() -> None:
    request = request_of(calls.READINESS)

    def is_ready(status: int, content: Any) -> bool:
        return calls.is_ready(httpx.Response(status, json=content, request=request))

    assert is_ready(200, {"status": "ready"})
    assert not is_ready(200, {"status": "warming-up"})
    assert not any(is_ready(status, {}) for status in (502, 503, 504))
    assert not calls.is_ready(httpx.ConnectError("refused", request=request))
    with pytest.raises(ServiceError, match="404"):
        is_ready(404, {})
