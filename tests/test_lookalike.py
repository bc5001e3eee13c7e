"""The command `lookalike`: one command's module at a time, and errors of one line."""

import errno
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import NoReturn

import pytest
import typer

import lookalike
from tests.conftest import Run
from training.errors import UserError


@pytest.fixture
def run_failing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> Callable[[BaseException], tuple[int, str, str]]:
    """`run_failing(error)` runs a command that raises the error."""

    def run_command(error: BaseException) -> tuple[int, str, str]:
        app = typer.Typer()

        @app.command()
        def serve() -> NoReturn:
            raise error

        monkeypatch.setitem(sys.modules, "service.cli", SimpleNamespace(app=app))
        return run("serve")

    return run_command


def test_help_lists_every_command(run: Run) -> None:
    done = run("--help")
    assert done.status == 0
    assert all(command in done.out for command in lookalike.MODULES)


@pytest.mark.parametrize("command", lookalike.MODULES)
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert (done.status, done.err) == (0, "")
    assert "Usage: " in done.out


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"lookalike {version('lookalike')}\n", "")


def test_an_unknown_command_is_refused(run: Run) -> None:
    done = run("serch")
    assert (done.status, done.out) == (2, "")
    assert "No such command 'serch'" in done.err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("the index\nis missing; make it"), "the index is missing; make it"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "this command needs torch, which is not installed; "
            "install it with: pip install 'lookalike[full]'",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.bin"),
            "a.bin: No space left on device; free some disk space, and run the command again",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a.bin"), "a.bin: Permission denied"),
        (OSError("the disk is gone"), "the disk is gone"),
    ],
)
def test_an_error_that_users_can_correct_is_one_line(
    run_failing: Callable[[BaseException], tuple[int, str, str]], error: BaseException, line: str
) -> None:
    assert run_failing(error) == (1, "", f"lookalike: {line}\n")


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), ModuleNotFoundError("No module named 'indexr'", name="indexr")]
)
def test_a_bug_keeps_its_traceback(
    run_failing: Callable[[BaseException], tuple[int, str, str]], error: BaseException
) -> None:
    with pytest.raises(type(error)):
        run_failing(error)


def test_the_python_api_imports_nothing_heavy_until_it_is_used() -> None:
    heavy = ["numpy", "faiss", "onnxruntime", "torch", "fastapi", "PIL"]
    program = f"import sys, lookalike; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
