"""The front door: gathers the command-line apps of the three packages into one command, importing each only when it is called."""

import errno
import importlib
import sys
from importlib.metadata import version

import typer

from training.errors import UserError

MODULES = {
    "demo": "service.demo",
    "train": "training.cli",
    "evaluate": "training.cli",
    "ablate": "training.cli",
    "export": "training.cli",
    "import": "training.cli",
    "figures": "indexer.cli",
    "index": "indexer.cli",
    "classify": "indexer.cli",
    "search": "indexer.cli",
    "serve": "service.cli",
}
"""Where each command's app is."""


def main() -> None:
    """Runs the command that `sys.argv` names. What a user can mend is one line on the standard error and exit status 1."""
    try:
        _gather(sys.argv[1] if len(sys.argv) > 1 else "")()
    except UserError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in (
            "torch",
            "onnx",
            "onnxscript",
            "safetensors",
            "sklearn",
            "matplotlib",
            "pyarrow",
            "faiss",
        ):
            raise
        _fail(
            f"this command needs {error.name}, which is not installed; install it with: pip install 'lookalike[full]'"
        )
    except OSError as error:  # a full disk, a folder that may not be written
        remedy = (
            "; make room, and run the command again"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            else ""
        )
        _fail((f"{error.filename}: {error.strerror}" if error.filename else str(error)) + remedy)


def _gather(command: str) -> typer.Typer:
    """The app of one command, or all of them where the first word is none."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Image classification and look-alike search on AlexNet.",
    )

    @app.callback()
    def options(
        show_version: bool = typer.Option(
            False,
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ) -> None:
        pass

    for module in dict.fromkeys([MODULES[command]] if command in MODULES else MODULES.values()):
        app.add_typer(importlib.import_module(module).app)
    return app


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"lookalike {version('lookalike')}")
        raise typer.Exit


def _fail(message: str) -> None:
    print(f"lookalike: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
