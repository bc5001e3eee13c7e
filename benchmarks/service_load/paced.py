"""Send one upload at a steady rate, and note how each request ends.

wrk sends the next request of a connection when it has the answer to the last one, so a slow server
gets fewer requests. Here, each request has a time at which it is due, and its duration counts from
this time.
"""

import math
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from benchmarks.service_load.wrk import BOUNDARY, upload_form

PATIENCE_S = 60.0


class Sent(NamedTuple):
    """One request that has ended."""

    due_s: float
    """When it was due, on the clock of time.monotonic."""
    took_s: float
    """From the time at which it was due until its answer was complete."""
    failure: str
    """The reason why the request failed. It is empty after a good answer."""


class PacedLoad:
    """Sends an image on `clients` connections inside its `with` block.

    `rate` is the number of requests per second. If it is infinite, each connection sends its next
    request as soon as it has an answer. `check(content, start_s, end_s)` says what is wrong with an
    answer of status 200; an empty text means nothing.
    """

    def __init__(
        self,
        address: str,
        image: bytes,
        *,
        clients: int,
        rate: float = math.inf,
        check: Callable[[bytes, float, float], str] = lambda content, start_s, end_s: "",
    ):
        self._address, self._form = urlsplit(address), upload_form(image, "image")
        self._interval_s, self._check = 1 / rate, check
        self._threads = [threading.Thread(target=self._send_all) for _ in range(clients)]
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self.sent: list[Sent] = []
        """The requests in the order in which they ended."""

    def __enter__(self) -> Self:
        self._next_s = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _send_all(self) -> None:
        connection = HTTPConnection(self._address.netloc, timeout=PATIENCE_S)
        try:
            while not self._is_over.is_set():
                with self._lock:
                    due_s = self._next_s = self._next_s + self._interval_s
                if not self._interval_s:
                    due_s = time.monotonic()
                if self._is_over.wait(max(0.0, due_s - time.monotonic())):
                    return
                failure = self._send(connection)
                self.sent.append(Sent(due_s, time.monotonic() - due_s, failure))
        finally:
            connection.close()

    def _send(self, connection: HTTPConnection) -> str:
        """Send the image once, and return what was wrong."""
        start_s = time.monotonic()
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        try:
            path = f"{self._address.path}?{self._address.query}"
            connection.request("POST", path, self._form, headers)
            response = connection.getresponse()
            content = response.read()
        except (HTTPException, OSError) as error:
            connection.close()  # the next request connects again
            return type(error).__name__
        if response.status != 200:
            return f"status {response.status}"
        return self._check(content, start_s, time.monotonic())
