"""The health check of the container, without a container."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.health_check import check
from tests.service.conftest import Service
from training.errors import UserError

ROOT = Path(__file__).parents[2]


class Stopping(BaseHTTPRequestHandler):
    """A service that is about to stop."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b"it is stopping")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def stopping_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Stopping) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def of_dockerfile(port: int | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the health check of the Dockerfile in this environment."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    (command,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.MULTILINE)
    python, *arguments = json.loads(command)
    assert python == "python"
    without_proxies = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env={
            **without_proxies,
            "PYTHONPATH": str(ROOT),
            "LOOKALIKE_PORT": str(port),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_ready_service_is_healthy_whatever_the_environment_holds(
    service: Service, host: str
) -> None:
    # Nothing answers on port 9. A check that used the proxies would fail.
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    done = of_dockerfile(
        service.url.rpartition(":")[2],
        LOOKALIKE_HOST=host,
        LOOKALIKE_ROOT_PATH="/lookalike",
        LOOKALIKE_SERVICE_HOST="10.96.0.10",
        **proxies,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stopping_service_is_not_healthy(stopping_port: int) -> None:
    done = of_dockerfile(stopping_port)
    assert done.returncode == 1
    assert done.stderr == "GET /readyz was answered with status 503: it is stopping\n"


def test_a_service_that_does_not_answer_is_not_healthy(stopping_port: int) -> None:
    environment = {"LOOKALIKE_PORT": str(stopping_port), "LOOKALIKE_HOST": "nowhere.invalid"}
    with pytest.raises(UserError, match=f"nowhere.invalid, port {stopping_port}: no answer"):
        check(environment)
