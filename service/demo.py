"""`lookalike demo`: train, index, draw the figures and serve, in one go; what is done is not done again."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from indexer.storage.codes import MIN_ITEMS
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.errors import UserError
from training.network.model import CARD_FILE, read_card
from training.progress import console

app = typer.Typer()

QUICK_IMAGE_SIZE = 128
"""Trains three times as fast as the recipes' 224 pixels: minutes, for a few thousand images on a CPU."""
FIGURE_FILES = ("figure-3.png", "figure-4.png")


@app.command()
def demo(
    data: Annotated[
        str,
        typer.Argument(
            metavar="[DATA]", help="A folder of class folders, a CSV, tar shards, or digits."
        ),
    ] = "digits",
    workdir: Annotated[
        Path, typer.Option(help="Where the model, the index and the figures go.")
    ] = Path("lookalike-demo"),
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve the index when all is made.")
    ] = True,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")
    ] = 8000,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the images; else the recipe's.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square that the network sees, in pixels; else 128, and 67 for digits."
        ),
    ] = None,
) -> None:
    """From a folder of images to answers in a browser: trains a network, indexes and encodes the images, draws the figures, and serves."""
    model, index, figures = workdir / "model", workdir / "index", workdir / "figures"
    _check_same_data(model, data)
    _step(
        1,
        "Train a network",
        model,
        (model / CARD_FILE).exists,
        lambda: _train(data, model, epochs, image_size),
    )
    _step(
        2,
        "Index the images",
        index,
        lambda: _is_indexed(index, model),
        lambda: _index(data, model, index),
    )
    _step(
        3,
        "Make binary codes",
        index,
        lambda: read_manifest(index).has_codes,
        lambda: _encode(index),
    )
    _step(
        4,
        "Draw the figures",
        figures,
        lambda: _are_drawn(figures, index),
        lambda: _draw(model, index, figures),
    )
    if serve:
        from service.cli import serve as serve_index

        console.print(f"Step 5: Serve {index}")
        serve_index(index, host=host, port=port)
    else:
        console.print(f"Serve them with: lookalike serve {index}")


def _step(
    number: int, title: str, result: Path, is_done: Callable[[], bool], make: Callable[[], None]
) -> None:
    if is_done():
        console.print(f"Step {number}: {title}: done before, in {result}")
        return
    console.print(f"Step {number}: {title}, into {result}")
    make()


def _check_same_data(model: Path, data: str) -> None:
    """Refuses a working directory made from other data: its steps would count as done."""
    if not (model / CARD_FILE).exists():
        return
    trained_on = str(read_card(model).data["name"])
    if trained_on != data and Path(trained_on).resolve() != Path(data).resolve():
        raise UserError(
            f"{model.parent} was made from {trained_on}, not {data}; pass another --workdir, or remove that directory first"
        )


def _train(data: str, model: Path, epochs: int | None, image_size: int | None) -> None:
    from training.learning.session import Request, train

    if image_size is None and data != "digits":
        image_size = QUICK_IMAGE_SIZE
    result = train(Request(data=data, out=model, epochs=epochs, image_size=image_size, resume=True))
    metrics = result.card.metrics
    skipped = describe_skipped(result.skipped, model / SKIPPED_FILE)
    console.print(
        f"Held-out images: top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%}; {skipped}"
    )


def _is_indexed(index: Path, model: Path) -> bool:
    if not (index / MANIFEST_FILE).exists():
        return False
    manifest = read_manifest(index)
    return manifest.is_complete and manifest.model_id == read_card(model).id


def _index(data: str, model: Path, index: Path) -> None:
    from indexer.updates.build import build

    report = build(data, model, index)
    console.print(
        f"{report.num_items:,} images indexed; {describe_skipped(report.skipped, index / SKIPPED_FILE)}"
    )


def _encode(index: Path) -> None:
    num_items = read_manifest(index).num_items
    if num_items < MIN_ITEMS:
        console.print(f"{num_items} images are too few to learn codes from; {MIN_ITEMS} will do")
        return
    from indexer.learned.encode import encode

    facts = encode(index)
    console.print(f"{facts.num_bits} bits an image, learnt from {facts.num_fitted:,} images")


def _are_drawn(figures: Path, index: Path) -> bool:
    """Whether the figures are there and no older than the index."""
    files = [figures / name for name in FIGURE_FILES]
    made_at = (index / MANIFEST_FILE).stat().st_mtime
    return all(file.exists() and file.stat().st_mtime >= made_at for file in files)


def _draw(model: Path, index: Path, figures: Path) -> None:
    from indexer.reports.figures import draw_figures

    draw_figures(model, index, figures)
