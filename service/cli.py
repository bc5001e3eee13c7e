"""`lookalike serve`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.opening import open_for_queries
from service.app import create_app
from service.server import Server, bind
from service.settings import read_settings

app = typer.Typer(no_args_is_help=True)


@app.command()
def serve(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", show_default=False, help="An index directory.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="The model directory, if not the index's own copy.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            envvar="LOOKALIKE_HOST", help="The address to listen on; 0.0.0.0 for every network."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            envvar="LOOKALIKE_PORT", help="The port to listen on; 0 takes any that is free."
        ),
    ] = 8000,
) -> None:
    """Serve an index and its model: a web page, and an API that /docs describes. Further settings: LOOKALIKE_... in the environment."""
    settings = read_settings(host=host, port=port)
    listener = bind(settings.host, settings.port)
    parts = open_for_queries(index, model, device="auto", num_threads=settings.num_threads)
    num_images = parts[0].manifest.num_items
    shown_host = f"[{host}]" if ":" in host else host
    line = f"Serving {num_images:,} images at http://{shown_host}:{listener.getsockname()[1]}"
    Server(create_app(*parts, settings), lambda: print(line, flush=True)).run([listener])
