"""Fixtures for the tests of the indexer: small volumes, an own index, commands that must succeed.

A small or read-only volume is needed because root may write whatever `chmod` says.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.fixture
def own_index(tiny_index: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_index` for one test, which may change it."""
    return Path(shutil.copytree(tiny_index, tmp_path / "index"))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a volume with `mount`'s arguments on a new folder until the test ends.

    Skips the test if this user may not mount.
    """
    mounted: list[Path] = []

    def run(*arguments: str | Path, where: Path | None = None) -> Path:
        point = where or tmp_path / f"volume-{len(mounted)}"
        point.mkdir(exist_ok=True)
        if os.geteuid() != 0:
            pytest.skip("needs to mount a volume, which takes root")
        command = ["mount", *arguments, point]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs to mount a volume: {done.stderr.strip()}")
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
    """Makes an empty volume with room for this number of bytes."""
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
    """Runs a command that must succeed; gives what it printed on standard output and error."""

    def run_command(*arguments: str | Path) -> tuple[str, str]:
        status, out, err = run(*arguments)
        assert status == 0, err
        return out, err

    return run_command
