"""The load at a steady rate, against a small server."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from benchmarks.service_load.paced import PacedLoad


class Answers(BaseHTTPRequestHandler):
    """Answers /good, refuses /busy, and closes the connection of everything else."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/lost"):
            self.close_connection = True
            return
        self.send_response(429 if self.path.startswith("/busy") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def run(load: PacedLoad, seconds: float) -> None:
    with load:
        time.sleep(seconds)


def test_the_requests_are_due_at_a_steady_rate(url: str) -> None:
    load = PacedLoad(f"{url}/good", b"photo", clients=4, rate=20)
    run(load, 1)
    due_s = sorted(one.due_s for one in load.sent)
    assert 5 <= len(due_s) <= 21
    for earlier, later in pairwise(due_s):
        assert later - earlier == pytest.approx(0.05, abs=1e-6)
    assert not any(one.failure for one in load.sent)


def test_without_a_rate_each_connection_sends_without_a_pause(url: str) -> None:
    load = PacedLoad(f"{url}/good", b"photo", clients=2)
    run(load, 0.5)
    assert len(load.sent) > 20
    assert all(0 < one.took_s < 60 for one in load.sent)


def test_refusals_lost_connections_and_wrong_answers_are_failures(url: str) -> None:
    def check(content: bytes, start_s: float, end_s: float) -> str:
        assert start_s <= end_s
        return "wrong" if b"photo" in content else ""

    failures = {}
    for path in ("good", "busy", "lost"):
        load = PacedLoad(f"{url}/{path}", b"photo", clients=1, rate=50, check=check)
        run(load, 0.3)
        failures[path] = {one.failure for one in load.sent}
    assert failures == {
        "good": {"wrong"},
        "busy": {"status 429"},
        "lost": {"RemoteDisconnected"},
    }
