"""A server of one file on 127.0.0.1, whose next answers a test can choose."""

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"alexnet-{SHA256[:8]}.pth"


@dataclass(frozen=True)
class Asked:
    """A request that the server received."""

    method: str
    target: str
    headers: dict[str, str]


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FileServer:
    """The served file, the requests so far, and the next answers. When none is left, the file is
    sent, or the part that the request asks for."""

    port: int
    content: bytes = CONTENT
    etag: str = '"first"'
    next_answers: list[Answer] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.address}/{NAME}"

    def ranges(self) -> list[str | None]:
        """The field Range of every request."""
        return [request.headers.get("Range") for request in self.requests]

    def send(
        self,
        *,
        num_bytes: int | None = None,
        wait: threading.Event | None = None,
        has_ranges: bool = True,
        has_length: bool = True,
        has_version: bool = True,
    ) -> Answer:
        """An answer with the file. If `num_bytes` is given, only these bytes are sent. Then the
        server waits for the event, and closes the connection."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            begin = self._begin(handler) if has_ranges else 0
            if begin >= len(self.content):
                return status(416)(handler)
            handler.send_response(206 if begin else 200)
            if begin:
                size = len(self.content)
                handler.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            if has_length:
                handler.send_header("Content-Length", str(len(self.content) - begin))
            if has_version:
                handler.send_header("ETag", self.etag)
            handler.end_headers()
            end = None if num_bytes is None else begin + num_bytes
            handler.wfile.write(self.content[begin:end])
            if wait:
                handler.wfile.flush()
                wait.wait(60)

        return answer

    def _begin(self, handler: BaseHTTPRequestHandler) -> int:
        """Position of the first byte that the request asks for (RFC 9110, sections 13.1.5, 14)."""
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        is_same = handler.headers.get("If-Range", self.etag) == self.etag
        return int(asked[1]) if asked and is_same else 0


def status(code: int, **headers: str) -> Answer:
    """An answer without content."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def stall(until: threading.Event) -> Answer:
    """No answer until the event is set; then the connection is closed."""

    def answer(_: BaseHTTPRequestHandler) -> None:
        until.wait(60)

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not an error of a test."""


@contextmanager
def serve_file() -> Iterator[FileServer]:
    """Start a FileServer on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(Asked(self.command, self.path, dict(self.headers)))
            answer = served.next_answers.pop(0) if served.next_answers else served.send()
            answer(self)

        do_CONNECT = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        served = FileServer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
