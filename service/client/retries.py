"""When the client sends a request again, and how long it waits before.

The statuses 429 and 503 mean that the service has not carried out the request, so every request is
sent again. After a connection error, a request is sent again if the service has certainly not
received it, or if it changes nothing. No other status is retried.
"""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

from service.client.errors import NOT_SENT

RETRIED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
BACK_OFF_S = 0.25
"""Maximum wait before the first retry, if the service does not say how long to wait. It doubles
with every retry."""
MAX_BACK_OFF_S = 8.0

Outcome = httpx.Response | httpx.RequestError
"""The result of sending a request once."""


class Retries:
    """The retries of one call: at most `max_retries`, which wait at most `max_wait_s` in total."""

    def __init__(self, *, max_retries: int, max_wait_s: float, is_repeatable: bool):
        """`is_repeatable` means that the call changes nothing, so it does no harm to repeat it."""
        self._num_left = max_retries
        self._left_s = max_wait_s
        self._is_repeatable = is_repeatable
        self._back_off_s = BACK_OFF_S

    def wait_s(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the request is sent again. None means that `outcome` is final."""
        if not self._num_left or not self._may_repeat(outcome):
            return None
        wait_s = retry_after_s(outcome) if isinstance(outcome, httpx.Response) else None
        if wait_s is None:
            # The random part keeps clients from coming back all at the same time.
            wait_s = self._back_off_s * random.uniform(0.5, 1.0)
            self._back_off_s = min(2 * self._back_off_s, MAX_BACK_OFF_S)
        if wait_s > self._left_s:
            return None
        self._num_left -= 1
        self._left_s -= wait_s
        return wait_s

    def _may_repeat(self, outcome: Outcome) -> bool:
        if isinstance(outcome, httpx.Response):
            return outcome.status_code in RETRIED
        if isinstance(outcome, NOT_SENT):
            return True
        # If the time of a request is over, another try would take the same time again.
        was_lost = isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError)
        return was_lost and self._is_repeatable


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of the header Retry-After (RFC 9110, section 10.2.3). None if it is not valid."""
    text: str = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
