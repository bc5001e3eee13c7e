"""The command `lookalike serve`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


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
        str,
        typer.Option(
            envvar="LOOKALIKE_HOST",
            help="Address to listen on. 0.0.0.0 means all network interfaces of this machine.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="LOOKALIKE_PORT", help="Port to listen on. 0 means any free port."),
    ] = 8000,
) -> None:
    """Serve an index and its model with a web page and an HTTP API. /docs describes the API.

    Environment variables LOOKALIKE_... change the other settings.
    """
    # Imported here, so that `lookalike --help` starts fast.
    from indexer.opening import open_index
    from service.app import create_app
    from service.server import Server, bind
    from service.settings import read_settings

    settings = read_settings(host=host, port=port)
    listener = bind(settings.host, settings.port)
    opened = open_index(index, model, device="auto", num_threads=settings.num_threads)
    num_images = opened.index.manifest.num_items
    shown_host = f"[{host}]" if ":" in host else host
    line = f"Serving {num_images:,} images at http://{shown_host}:{listener.getsockname()[1]}"
    Server(create_app(opened, settings), lambda: print(line, flush=True)).run([listener])
