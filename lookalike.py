"""The command `lookalike`, and the Python API: `lookalike.open_index("index").similar("cat.jpg")`.

The module of a command is imported only when the command runs. Heavy libraries are imported
inside the functions that use them.
"""

import errno
import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from training.errors import UserError
from training.naming import one_line

if TYPE_CHECKING:
    from indexer.opening import OpenIndex
    from training.devices import Device, RequestedPrecision

MODULES = {
    "demo": "service.demo",
    "train": "training.cli",
    "evaluate": "training.cli",
    "ablate": "training.cli",
    "export": "training.cli",
    "import": "training.cli",
    "figures": "indexer.cli",
    "report": "indexer.cli",
    "index": "indexer.cli",
    "classify": "indexer.cli",
    "search": "indexer.cli",
    "serve": "service.cli",
}
"""The module that defines each command. The command belongs to the `app` of this module."""
LIBRARIES_OF_FULL = frozenset(
    {
        *("torch", "torchvision", "onnx", "onnxscript", "safetensors", "sklearn"),
        *("matplotlib", "pyarrow", "filelock", "faiss"),
    }
)
"""Libraries that the extra `full` installs. The extra `service` installs only faiss."""


def open_index(
    directory: str | Path,
    model: str | Path | None = None,
    *,
    device: "Device" = "cpu",
    precision: "RequestedPrecision" = "auto",
) -> "OpenIndex":
    """Open an index for queries.

    The methods `similar`, `classify` and `features` of the result accept images. `model` is the
    directory of the model that the index was built with. Without it, the copy of the model in the
    index is used. The features of the query images are computed on the CPU. With the precision
    `auto`, they are computed in int8 if the model has a network in int8 whose answers agree with
    those in float32, and if the processor has instructions for int8. The index is searched on
    `device`. Raises training.errors.UserError.
    """
    from indexer.opening import open_index as open_directory

    return open_directory(directory, model, device=device, precision=precision)


def main() -> None:
    """Run the command that `sys.argv` names.

    If an error occurs that the user can correct, it is printed as one line on standard error, and
    the exit status is 1.
    """
    try:
        _make_app(sys.argv[1] if len(sys.argv) > 1 else "")()
    except UserError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in LIBRARIES_OF_FULL:
            raise
        _fail(
            f"this command needs {error.name}, which is not installed; "
            "install it with: pip install 'lookalike[full]'"
        )
    except OSError as error:  # a full disk or a folder without permission, for example
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "; free some disk space, and run the command again" if is_full else ""
        problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _fail(problem + remedy)


def _make_app(command: str) -> typer.Typer:
    """Make the app from the module that defines `command`.

    If no command has this name, make the app from all modules.
    """
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

    modules = [MODULES[command]] if command in MODULES else dict.fromkeys(MODULES.values())
    for module in modules:
        app.add_typer(importlib.import_module(module).app)
    return app


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"lookalike {version('lookalike')}")
        raise typer.Exit


def _fail(message: str) -> None:
    print(f"lookalike: {one_line(' '.join(message.split()))}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
