"""`docker compose up` for real: build images of this checkout, prepare the digits, serve them.

The volumes are empty at the start. The first build takes minutes.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import torch
from torchvision.models import alexnet

from tests.conftest import COLOURS, write_colours
from training.data.datasets import open_dataset
from training.files import file_sha256

ROOT = Path(__file__).parents[2]
MAX_SERVICE_IMAGE_BYTES = 600_000_000

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]


class Stack:
    """A compose project with volumes and a port of its own."""

    def __init__(self, compose: list[str], name: str):
        self._compose, self._name = compose, name
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def compose(
        self,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 300,
        fails: bool = False,
    ) -> str:
        """Run a command of Compose with these variables of docker-compose.yml."""
        unset = {"WEIGHTS": "", "LOOKALIKE_WEIGHTS_URL": ""}
        defaults = {"DATA": "digits", "INIT": "none", "PORT": str(self._port), **unset}
        return run(
            *(*self._compose, "-p", self._name, *arguments),
            environment={**os.environ, **defaults, **(variables or {})},
            timeout_s=timeout_s,
            fails=fails,
        )

    def up(self) -> None:
        """Start the stack, and return when the service is healthy."""
        self.compose("up", "--build", "--detach", timeout_s=3000)
        deadline = time.monotonic() + 120
        while (health := self.inspect("{{.State.Health.Status}}")) != "healthy":
            if time.monotonic() > deadline:
                pytest.fail(f"the service is {health}: {self.compose('logs', 'service')}")
            time.sleep(1)

    def inspect(self, template: str) -> str:
        return run("docker", "inspect", "--format", template, self.compose("ps", "-q", "service"))

    def inside(self, *command: str) -> str:
        return self.compose("exec", "-T", "service", *command)


def run(
    *command: str,
    environment: dict[str, str] | None = None,
    timeout_s: float = 300,
    fails: bool = False,
) -> str:
    """Run a command. Returns its standard output, or its standard error if it has to fail."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    output = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert (done.returncode != 0) == fails, f"{' '.join(command)}\n{output}"
    return (done.stderr if fails else done.stdout).strip()


def succeeds(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """The command of Compose; skips the test if there is no Docker engine or no Compose."""
    if not succeeds("docker", "info"):
        pytest.skip("no Docker engine answers")
    commands = (["docker", "compose"], ["docker-compose"])
    found = next((words for words in commands if succeeds(*words, "version")), None)
    if found is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    return found


@pytest.fixture(scope="module")
def stack(compose: list[str]) -> Iterator[Stack]:
    """The stack, started with empty volumes, and healthy."""
    stack = Stack(compose, f"lookalike-test-{os.getpid()}")
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture
def empty_stack(stack: Stack, compose: list[str]) -> Iterator[Stack]:
    """Another stack of the same images, with empty volumes. Nothing runs yet."""
    other = Stack(compose, f"lookalike-test-{os.getpid()}-other")
    try:
        yield other
    finally:
        other.compose("down", "--volumes", "--remove-orphans")


def test_an_indexed_image_is_found_first_and_named(stack: Stack) -> None:
    example = open_dataset("digits").examples[1234]
    assert isinstance(example.source, bytes)
    upload = {"image": ("digit.png", example.source, "image/png")}
    similar = httpx.post(f"{stack.url}/similar?k=3", files=upload).raise_for_status().json()
    matches = similar["results"][0]["matches"]
    assert (matches[0]["path"], matches[0]["label"]) == (example.path, example.label)
    assert matches[0]["distance"] == pytest.approx(0, abs=1e-2)
    classified = httpx.post(f"{stack.url}/classify?k=1", files=upload).raise_for_status().json()
    assert classified["results"][0]["classes"][0]["name"] == example.label


def test_the_service_image_is_slim(stack: Stack) -> None:
    image = stack.inspect("{{.Image}}")
    num_bytes = int(run("docker", "image", "inspect", "--format", "{{.Size}}", image))
    assert num_bytes <= MAX_SERVICE_IMAGE_BYTES
    program = "from importlib.util import find_spec; assert not find_spec('torch')"
    stack.inside("python", "-c", program)


def test_the_service_does_not_run_as_root_and_can_write_only_to_its_data(stack: Stack) -> None:
    assert stack.inside("id", "-u") == "10001"
    may_write = "touch /data/index/.probe && rm /data/index/.probe"
    stack.inside("sh", "-c", f"{may_write} && ! touch /opt/probe && ! touch /probe")


def test_a_second_up_does_not_prepare_again(stack: Stack) -> None:

    def model_id() -> str:
        return str(httpx.get(f"{stack.url}/info").raise_for_status().json()["model"]["id"])

    before = model_id()
    written = stack.inside("stat", "--format", "%Y", "/data/model/weights.safetensors")
    stack.compose("down")
    stack.up()
    assert stack.compose("logs", "prepare").count("already done") == 5
    assert stack.inside("stat", "--format", "%Y", "/data/model/weights.safetensors") == written
    assert model_id() == before


def test_a_folder_of_the_host_is_mounted_and_stays_as_it_is(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    tmp_path.chmod(0o755)
    script = 'ls /photos; touch /photos/dog 2>/dev/null || echo "read only"'
    seen = stack.compose("run", "--rm", "-T", "prepare", script, variables={"DATA": str(tmp_path)})
    assert seen.split("\n")[-2:] == ["cat", "read only"]


def test_a_weights_file_of_the_host_is_used_without_a_download(
    empty_stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "made-up.pth"
    torch.save(alexnet().state_dict(), file)
    file = file.rename(tmp_path / f"alexnet-{file_sha256(file)[:8]}.pth")
    photos = write_colours(tmp_path / "photos")
    for path in (file, photos, *(photos / label for label in COLOURS)):
        path.chmod(0o755)  # the user of the container can read it
    prepare = ("run", "--rm", "-T", "prepare")
    variables = {"DATA": str(photos), "INIT": "", "WEIGHTS": str(file)}
    empty_stack.compose(*prepare, variables=variables)
    card = json.loads(empty_stack.compose(*prepare, "cat /data/model/model.json"))
    assert card["data"]["name"] == f"torchvision alexnet, imported from {file.name}"
    assert empty_stack.compose(*prepare, "ls /cache") == ""


def test_weights_that_the_container_cannot_see_are_named(
    empty_stack: Stack, tmp_path: Path
) -> None:
    prepare = ("run", "--rm", "-T", "prepare")
    absent = str(tmp_path / "absent.pth")
    for variables, message in (
        ({"WEIGHTS": absent}, absent),
        ({"WEIGHTS": str(tmp_path)}, f"but {tmp_path} is not a file"),
        ({"LOOKALIKE_WEIGHTS_URL": absent}, f"but got {absent}; pass a file as WEIGHTS"),
    ):
        assert message in empty_stack.compose(*prepare, variables=variables, fails=True)
