"""Start a server in a process of its own, and stop it."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.record import ROOT

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Running:
    """A server that accepts requests."""

    url: str
    process: "subprocess.Popen[str]"

    @property
    def resident_mb(self) -> int:
        return self._memory_mb("VmRSS")

    @property
    def anonymous_mb(self) -> int:
        """Memory that is not a part of a file. The features of an index are a part of a file."""
        return self._memory_mb("RssAnon")

    def _memory_mb(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+)", status)[0]) // 1024


@contextmanager
def lookalike(index: Path, *options: str, **settings: str) -> Iterator[Running]:
    """Serve an index. `settings` are the service's settings by name."""
    variables = {f"LOOKALIKE_{name.upper()}": value for name, value in settings.items()}
    port = _free_port()
    arguments = ["lookalike.py", "serve", str(index), "--port", str(port), *options]
    with _running(arguments, port, "/readyz", variables) as running:
        yield running


@contextmanager
def peer(kind: str, index: Path | None = None) -> Iterator[Running]:
    """Serve with one of the other servers of peers.py."""
    port = _free_port()
    arguments = ["-m", "benchmarks.service_load.peers", kind, str(port)]
    arguments += [str(index)] if index else []
    with _running(arguments, port, "/docs", {}) as running:
        yield running


@contextmanager
def _running(
    arguments: Sequence[str], port: int, path: str, variables: dict[str, str]
) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(f"{url}{path}", process)
        yield Running(url, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(address: str, process: "subprocess.Popen[str]") -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{address} did not answer within {PATIENCE_S:.0f} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
