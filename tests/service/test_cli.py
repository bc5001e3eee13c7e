"""`lookalike serve` as its own process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.service.pictures import picture, problem, upload, wait_until

ROOT = Path(__file__).parents[2]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lookalike", "serve", *map(str, arguments)]


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves, and its address."""
    with subprocess.Popen(
        command(*arguments, "--port", 0),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("Serving 18 images at http://127.0.0.1:")
            yield process, line.split()[-1]
        finally:
            process.kill()


def fails(*arguments: object) -> str:
    """The one line that a command must fail with."""
    done = subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    return line


def test_serve_says_where_it_listens_and_drains_when_it_is_terminated(tiny_index: Path) -> None:
    with serving(tiny_index, LOOKALIKE_DRAIN_S="2") as (process, url):
        assert httpx.post(f"{url}/classify", files=upload(picture()), timeout=60).status_code == 200
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            problem(client.get("/readyz"), 503, "draining")
        assert process.wait(60) == 0


def test_serve_ends_cleanly_on_ctrl_c(tiny_index: Path) -> None:
    with serving(tiny_index) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_serve_refuses_what_is_no_index(tmp_path: Path) -> None:
    assert "index build" in fails(tmp_path / "nowhere")


def test_serve_refuses_a_model_that_is_not_the_indexs(tiny_index: Path, other_model: Path) -> None:
    assert "was built with model" in fails(tiny_index, "--model", other_model)


def test_serve_refuses_a_port_that_is_taken(tiny_index: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in fails(tiny_index, "--port", port)


def test_the_service_runs_without_torch(tiny_index: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from indexer.opening import open_for_queries
from service.app import create_app
from service.settings import Settings
import service.cli
create_app(*open_for_queries(Path({str(tiny_index)!r})), Settings()).openapi()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
