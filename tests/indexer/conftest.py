"""Small volumes of their own, to be full or read-only, which is what a chmod cannot do to root; and commands that have to succeed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a volume with `mount`'s arguments on a new folder, for the time of the test; skips it where that takes root."""
    mounted: list[Path] = []

    def run(*arguments: str | Path, where: Path | None = None) -> Path:
        point = where or tmp_path / f"volume-{len(mounted)}"
        point.mkdir(exist_ok=True)
        done = (
            subprocess.run(
                ["mount", *arguments, point], capture_output=True, text=True, check=False
            )
            if os.geteuid() == 0
            else None
        )
        if done is None or done.returncode:
            pytest.skip(
                f"needs to mount a volume, which this user may not do{': ' + done.stderr.strip() if done else ''}"
            )
        if where is None:
            mounted.append(point)
        return point

    try:
        yield run
    finally:
        for point in reversed(mounted):
            subprocess.run(["umount", "--lazy", point], check=True)


@pytest.fixture
def small_volume(mount: Callable[..., Path]) -> Callable[[int], Path]:
    """Makes an empty volume of so many bytes."""
    return lambda num_bytes: mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs")


@pytest.fixture
def read_only(mount: Callable[..., Path]) -> Callable[[Path], Path]:
    """Gives a read-only view of a folder."""

    def view(folder: Path) -> Path:
        point = mount("--bind", folder)
        return mount("-o", "remount,bind,ro", where=point)

    return view


Succeed = Callable[..., tuple[str, str]]


@pytest.fixture
def succeed(run: Run) -> Succeed:
    """Runs a command, which has to succeed; what it printed on the standard output, and on the error."""

    def run_command(*arguments: str | Path) -> tuple[str, str]:
        status, out, err = run(*arguments)
        assert status == 0, err
        return out, err

    return run_command
