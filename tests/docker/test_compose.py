"""The third door, for real: images built from this checkout, empty volumes, digits prepared and served. The first build takes minutes."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from training.data.datasets import open_dataset

ROOT = Path(__file__).parents[2]
MAX_SERVICE_IMAGE_BYTES = 600_000_000

pytestmark = pytest.mark.docker


class Stack:
    """A compose project of its own, with its own volumes and port."""

    def __init__(self, compose: list[str], name: str):
        self._compose, self._name = compose, name
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def compose(self, *arguments: str, data: str = "digits", timeout_s: float = 300) -> str:
        environment = {**os.environ, "DATA": data, "PORT": str(self._port)}
        return run(
            *self._compose,
            "-p",
            self._name,
            *arguments,
            environment=environment,
            timeout_s=timeout_s,
        )

    def up(self) -> None:
        """Returns once the service says that it is healthy."""
        self.compose("up", "--build", "--detach", timeout_s=3000)
        deadline = time.monotonic() + 120
        while (health := self.inspect("{{.State.Health.Status}}")) != "healthy":
            assert time.monotonic() < deadline, (
                f"the service is {health}: {self.compose('logs', 'service')}"
            )
            time.sleep(1)

    def inspect(self, template: str) -> str:
        return run("docker", "inspect", "--format", template, self.compose("ps", "-q", "service"))

    def inside(self, *command: str) -> str:
        return self.compose("exec", "-T", "service", *command)


def run(*command: str, environment: dict[str, str] | None = None, timeout_s: float = 300) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout.strip()


def succeeds(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The stack, up and healthy, from empty volumes."""
    if not succeeds("docker", "info"):
        pytest.skip("no Docker engine answers")
    compose = next(
        (
            words
            for words in (["docker", "compose"], ["docker-compose"])
            if succeeds(*words, "version")
        ),
        None,
    )
    if compose is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    stack = Stack(compose, f"lookalike-test-{os.getpid()}")
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


def test_an_indexed_image_is_found_first_and_named(stack: Stack) -> None:
    example = open_dataset("digits").examples[1234]
    assert isinstance(example.source, bytes)
    upload = {"image": ("digit.png", example.source, "image/png")}
    matches = (
        httpx.post(f"{stack.url}/similar?k=3", files=upload)
        .raise_for_status()
        .json()["results"][0]["matches"]
    )
    assert (matches[0]["path"], matches[0]["label"]) == (example.path, example.label)
    assert matches[0]["distance"] == pytest.approx(0, abs=1e-2)
    classes = (
        httpx.post(f"{stack.url}/classify?k=1", files=upload)
        .raise_for_status()
        .json()["results"][0]["classes"]
    )
    assert classes[0]["name"] == example.label


def test_the_service_image_is_slim(stack: Stack) -> None:
    image = stack.inspect("{{.Image}}")
    assert (
        int(run("docker", "image", "inspect", "--format", "{{.Size}}", image))
        <= MAX_SERVICE_IMAGE_BYTES
    )
    stack.inside(
        "python", "-c", "from importlib.util import find_spec; assert not find_spec('torch')"
    )


def test_the_service_is_no_root_and_can_write_only_to_its_data(stack: Stack) -> None:
    assert stack.inside("id", "-u") == "10001"
    stack.inside(
        "sh",
        "-c",
        "touch /data/index/.probe && rm /data/index/.probe && ! touch /opt/probe && ! touch /probe",
    )


def test_a_second_up_does_not_prepare_again(stack: Stack) -> None:
    before = httpx.get(f"{stack.url}/info").raise_for_status().json()
    written = stack.inside("stat", "--format", "%Y", "/data/model/weights.safetensors")
    stack.compose("down")
    started = time.monotonic()
    stack.up()
    assert time.monotonic() - started < 120
    assert "done before" in stack.compose("logs", "prepare")
    assert stack.inside("stat", "--format", "%Y", "/data/model/weights.safetensors") == written
    assert (
        httpx.get(f"{stack.url}/info").raise_for_status().json()["model"]["id"]
        == before["model"]["id"]
    )


def test_a_folder_of_the_host_is_mounted_and_stays_as_it_is(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    tmp_path.chmod(0o755)
    seen = stack.compose(
        "run",
        "--rm",
        "-T",
        "prepare",
        'ls /photos; touch /photos/dog 2>/dev/null || echo "read only"',
        data=str(tmp_path),
    )
    assert seen.split("\n")[-2:] == ["cat", "read only"]
