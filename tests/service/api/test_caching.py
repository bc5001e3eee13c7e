"""ETag and If-None-Match."""

import pytest
from fastapi import Request

from service.api.caching import is_known, not_modified, tagged


def request(*if_none_match: str) -> Request:
    """A request with these If-None-Match headers."""
    headers = [(b"if-none-match", value.encode()) for value in if_none_match]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    "headers",
    [
        ['"abc"'],
        ['W/"abc"'],
        ['"xyz", "abc"'],
        ['"xyz",W/"abc" , "123"'],
        ['"xyz"', '"abc"'],
        ['"a, b", "abc"'],
        ["*"],
        [" * "],
    ],
)
def test_a_tag_in_if_none_match_is_known(headers: list[str]) -> None:
    assert is_known(request(*headers), "abc")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ['"xyz"'],
        ['"abcd"'],
        ['"xabc"'],
        ["abc"],
        ['"ABC"'],
        ['"*"'],
        ['"x, abc, y"'],
    ],
)
def test_another_tag_is_not_known(headers: list[str]) -> None:
    assert not is_known(request(*headers), "abc")


def test_both_answers_carry_the_tag_and_how_long_they_may_be_kept() -> None:
    for response in (
        not_modified("abc", "no-cache"),
        tagged(b"1", "text/plain", "abc", "no-cache"),
    ):
        assert response.headers["etag"] == '"abc"'
        assert response.headers["cache-control"] == "no-cache"


def test_the_answer_to_a_known_tag_is_304_without_content() -> None:
    response = not_modified("abc", "no-cache")
    assert (response.status_code, response.body) == (304, b"")
