"""`lookalike serve` as a process of its own."""

import json
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
    """A process that serves the tiny index, and its address."""
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
    """The single line with which the command must fail."""
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


def test_serve_logs_in_json_and_goes_on_beside_variables_of_kubernetes(tiny_index: Path) -> None:
    environment = {
        "LOOKALIKE_LOG_FORMAT": "json",
        "LOOKALIKE_ACCESS_LOG": "1",
        "LOOKALIKE_MAX_WAITNG": "7",
        "LOOKALIKE_PORT": "tcp://10.96.0.10:8000",
        "LOOKALIKE_SERVICE_PORT": "8000",
    }
    with subprocess.Popen(
        command(tiny_index, "--port", 0),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            records = [json.loads(process.stderr.readline()) for _ in range(3)]
            misspelt, of_kubernetes, serving_at = (record["message"] for record in records)
            assert "LOOKALIKE_MAX_WAITING" in misspelt
            assert "tcp://10.96.0.10:8000 is ignored" in of_kubernetes
            url = serving_at.split()[-1]
            assert httpx.get(f"{url}/livez", timeout=60).status_code == 200
            access = json.loads(process.stderr.readline())
            assert (access["path"], access["status"]) == ("/livez", 200)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
            assert (process.returncode, out) == (0, "")
        finally:
            process.kill()


def test_serve_listens_on_the_port_of_the_variable(tiny_index: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "lookalike", "serve", str(tiny_index)],
            cwd=ROOT,
            env={**os.environ, "LOOKALIKE_PORT": port},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr


def test_serve_refuses_a_directory_that_is_not_an_index(tmp_path: Path) -> None:
    assert "index build" in fails(tmp_path / "nowhere")


def test_serve_refuses_a_model_other_than_the_one_of_the_index(
    tiny_index: Path, other_model: Path
) -> None:
    assert "was built with model" in fails(tiny_index, "--model", other_model)


def test_serve_refuses_a_port_that_is_taken(tiny_index: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in fails(tiny_index, "--port", port)
