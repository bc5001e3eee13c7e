"""The load program: its output, and a real run if wrk is installed."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.service_load.wrk import parse, press

OUTPUT = """Running 2s test @ http://127.0.0.1:8000/classify
  Requests/sec:     12.5

RESULT {"seconds": 2.0, "p50_ms": 10.04, "p99_ms": 55.55, "accepted_p99_ms": 60.0,
 "num_errors": 1, "statuses": {"200": 25, "429": 100}}
"""


def test_only_good_answers_count_as_images() -> None:
    load = parse(OUTPUT)
    assert load.images_per_s == 12.5
    assert (load.p50_ms, load.num_errors) == (10.0, 1)
    assert load.statuses == {"200": 25, "429": 100}


class Echo(BaseHTTPRequestHandler):
    """Answers an upload with its time, and every third upload with a refusal."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        self.send_response(429 if len(self.bodies) % 3 == 0 else 200)
        self.send_header("Server-Timing", "network;dur=1.0, total;dur=7.5")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk, which is not installed")
def test_a_server_gets_the_image_as_an_upload(tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(b"\xff\xd8 a photo")
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/classify"
        load = press(address, image, clients=1, seconds=1)
        server.shutdown()
        thread.join()
    assert b'name="image"; filename="photo.jpg"' in Echo.bodies[0]
    assert b"\xff\xd8 a photo" in Echo.bodies[0]
    assert load.statuses["200"] >= load.statuses["429"] > 0
    assert load.accepted_p99_ms == 7.5
