"""The requests that are sent again, and the waits before them."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client.retries import BACK_OFF_S, MAX_BACK_OFF_S, Outcome, Retries, retry_after_s


def retries(max_retries: int = 5, max_wait_s: float = 60.0, *, is_repeatable: bool) -> Retries:
    return Retries(max_retries=max_retries, max_wait_s=max_wait_s, is_repeatable=is_repeatable)


def busy(retry_after: str | None = None, status: int = 429) -> httpx.Response:
    return httpx.Response(status, headers={"Retry-After": retry_after} if retry_after else {})


def is_retried(outcome: Outcome, *, is_repeatable: bool) -> bool:
    return retries(is_repeatable=is_repeatable).wait_s(outcome) is not None


def after(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("is_repeatable", [True, False])
def test_a_busy_service_is_asked_again(status: int, is_repeatable: bool) -> None:
    assert is_retried(busy("1", status), is_repeatable=is_repeatable)
    assert is_retried(busy(None, status), is_repeatable=is_repeatable)


@pytest.mark.parametrize("status", [200, 201, 308, 400, 401, 404, 408, 500, 502, 504])
def test_no_other_status_is_retried(status: int) -> None:
    assert not is_retried(busy("1", status), is_repeatable=True)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_every_request_that_was_not_sent_is_sent_again(error: type[httpx.RequestError]) -> None:
    assert is_retried(error("no"), is_repeatable=False)


@pytest.mark.parametrize(
    "error", [httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError]
)
def test_a_change_whose_answer_was_lost_is_not_repeated(error: type[httpx.RequestError]) -> None:
    assert is_retried(error("no"), is_repeatable=True)
    assert not is_retried(error("no"), is_repeatable=False)


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout, httpx.WriteTimeout, httpx.LocalProtocolError, httpx.DecodingError],
)
def test_other_errors_are_final(error: type[httpx.RequestError]) -> None:
    assert not is_retried(error("no"), is_repeatable=True)


def test_the_service_says_how_long_to_wait() -> None:
    assert retries(is_repeatable=True).wait_s(busy("7")) == 7.0
    assert retries(is_repeatable=True).wait_s(busy("0")) == 0.0
    wait_s = retries(is_repeatable=True).wait_s(busy(after(30)))
    assert wait_s == pytest.approx(30, abs=2)


def test_there_are_at_most_max_retries() -> None:
    tried = retries(max_retries=2, is_repeatable=True)
    assert [tried.wait_s(busy("1")) for _ in range(3)] == [1.0, 1.0, None]
    assert retries(max_retries=0, is_repeatable=True).wait_s(busy("0")) is None


def test_the_waits_are_at_most_max_wait_s_in_total() -> None:
    tried = retries(max_wait_s=5.0, is_repeatable=True)
    assert [tried.wait_s(busy(seconds)) for seconds in ("3", "3", "2", "1")] == [3, None, 2, None]


def test_the_waits_grow_if_the_service_does_not_say_how_long_to_wait() -> None:
    tried = retries(max_retries=12, max_wait_s=1000, is_repeatable=True)
    waits = [tried.wait_s(busy()) or 0.0 for _ in range(12)]
    limits = [min(BACK_OFF_S * 2**number, MAX_BACK_OFF_S) for number in range(12)]
    assert all(limit / 2 <= wait_s <= limit for wait_s, limit in zip(waits, limits, strict=True))


def test_clients_do_not_come_back_at_the_same_time() -> None:
    assert len({retries(is_repeatable=True).wait_s(busy()) for _ in range(20)}) > 10


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5", "\u0663", "Mon, 32 Jan 2024", "1e9"])
def test_a_retry_after_that_is_not_valid_is_ignored(text: str) -> None:
    headers = {b"Retry-After": text.encode()}
    assert retry_after_s(httpx.Response(429, headers=headers)) is None


def test_a_date_in_the_past_means_now() -> None:
    assert retry_after_s(busy(after(-60))) == 0.0
    assert retry_after_s(busy("Mon, 01 Jan 2024 00:00:00 -0000")) == 0.0


@given(
    st.binary(max_size=40) | st.from_regex(rb"[0-9A-Za-z ,:+-]*").filter(lambda it: len(it) < 99)
)
def test_no_retry_after_is_an_error(value: bytes) -> None:
    wait_s = retry_after_s(httpx.Response(429, headers={b"Retry-After": value}))
    assert wait_s is None or wait_s >= 0


def test_a_huge_retry_after_is_not_waited_for() -> None:
    assert retries(is_repeatable=True).wait_s(busy("9" * 5000)) is None
