"""The command `lookalike serve`."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.devices import RequestedPrecision

if TYPE_CHECKING:
    from service.settings import Settings

app = typer.Typer(no_args_is_help=True)
logger = logging.getLogger(__name__)

Precision = Annotated[
    RequestedPrecision | None,
    typer.Option(
        show_default="LOOKALIKE_PRECISION, or auto",
        help="Precision of the network. auto is int8 on the CPU if the model has a network in int8 "
        "whose answers agree with those in float32, and the processor has instructions for int8.",
    ),
]


@app.command()
def serve(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", show_default=False, help="An index directory.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="A model directory to use instead of the index's own copy."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            show_default="LOOKALIKE_HOST, or 127.0.0.1",
            help="Address to listen on. 0.0.0.0 means all network interfaces of this machine.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            show_default="LOOKALIKE_PORT, or 8000",
            help="Port to listen on. 0 means any free port.",
        ),
    ] = None,
    precision: Precision = None,
) -> None:
    """Serve an index and its model with a web page and an HTTP API. /docs describes the API.

    Environment variables LOOKALIKE_... change the other settings.
    """
    # Imported here, so that `lookalike --help` starts fast.
    from indexer.opening import open_index
    from service import logs
    from service.app import create_app
    from service.environment import remarks
    from service.server import Server, bind, metrics_server
    from service.settings import Settings, read_settings

    given = {"host": host, "port": port, "precision": precision}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings)
    for remark in remarks(os.environ, Settings.model_fields):
        logger.warning(remark)
    listener = bind(settings.host, settings.port)
    threads, chosen = settings.num_threads, settings.precision
    opened = open_index(index, model, device="auto", num_threads=threads, precision=chosen)
    num_images = opened.index.manifest.num_items
    shown_host = f"[{settings.host}]" if ":" in settings.host else settings.host
    line = f"Serving {num_images:,} images at http://{shown_host}:{listener.getsockname()[1]}"
    app = create_app(opened, settings)
    with metrics_server(settings, app.state.metrics):
        Server(app, lambda: _announce(line, settings)).run([listener])


def _announce(line: str, settings: "Settings") -> None:
    """Print a line. If the log is JSON, write it there, because programs read the output."""
    if settings.log_format == "json":
        logger.info(line)
    else:
        print(line, flush=True)
