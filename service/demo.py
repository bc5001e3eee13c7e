"""The command `lookalike demo`: train, index, encode, draw the figures and serve.

Finished steps are not repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
"""Default side of the square, in pixels. Training is three times as fast as with the recipes' 224
pixels. A few thousand images take minutes on a CPU."""
FIGURE_FILES = ("figure-3.png", "figure-4.png")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the demo. It writes to the directory `result`."""

    title: str
    result: Path
    is_done: Callable[[], bool]
    make: Callable[[], None]


@app.command()
def demo(
    data: Annotated[
        str,
        typer.Argument(
            metavar="[DATA]", help="A folder of class folders, a CSV, tar shards, or digits."
        ),
    ] = "digits",
    workdir: Annotated[
        Path, typer.Option(help="Directory for the model, the index and the figures.")
    ] = Path("lookalike-demo"),
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve the index at the end.")
    ] = True,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 means any free port.")
    ] = 8000,
    epochs: Annotated[
        int | None,
        typer.Option(help="Number of passes over the images. The default depends on the recipe."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square that the network sees, in pixels. The default is 128, "
            "and 67 for digits."
        ),
    ] = None,
) -> None:
    """Go from a folder of images to answers in a browser.

    Train a network, index the images, make binary codes, draw the figures, and serve the index.
    """
    _check_same_data(workdir / "model", data)
    for number, step in enumerate(_steps(data, workdir, epochs, image_size), 1):
        _run(number, step)
    index = workdir / "index"
    if serve:
        from service.cli import serve as serve_index

        console.print(f"Step 5: Serve {index}")
        serve_index(index, host=host, port=port)
    else:
        console.print(f"To serve the index, run: lookalike serve {index}")


def _steps(data: str, workdir: Path, epochs: int | None, image_size: int | None) -> list[Step]:
    model, index, figures = workdir / "model", workdir / "index", workdir / "figures"
    return [
        Step(
            title="Train a network",
            result=model,
            is_done=(model / CARD_FILE).exists,
            make=lambda: _train(data, model, epochs, image_size),
        ),
        Step(
            title="Index the images",
            result=index,
            is_done=lambda: _is_indexed(index, model),
            make=lambda: _index(data, model, index),
        ),
        Step(
            title="Make binary codes",
            result=index,
            is_done=lambda: read_manifest(index).has_codes,
            make=lambda: _encode(index),
        ),
        Step(
            title="Draw the figures",
            result=figures,
            is_done=lambda: _are_drawn(figures, index),
            make=lambda: _draw(model, index, figures),
        ),
    ]


def _run(number: int, step: Step) -> None:
    if step.is_done():
        console.print(f"Step {number}: {step.title}: already done, in {step.result}")
        return
    console.print(f"Step {number}: {step.title}, into {step.result}")
    step.make()


def _check_same_data(model: Path, data: str) -> None:
    """Raise UserError if the working directory was made from other data.

    Its steps would wrongly count as done.
    """
    if not (model / CARD_FILE).exists():
        return
    trained_on = str(read_card(model).data["name"])
    if trained_on != data and Path(trained_on).resolve() != Path(data).resolve():
        raise UserError(
            f"{model.parent} was made from {trained_on}, not {data}; "
            "pass another --workdir, or remove that directory first"
        )


def _train(data: str, model: Path, epochs: int | None, image_size: int | None) -> None:
    from training.learning.request import Request
    from training.learning.session import train

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
    skipped = describe_skipped(report.skipped, index / SKIPPED_FILE)
    console.print(f"{report.num_items:,} images indexed; {skipped}")


def _encode(index: Path) -> None:
    num_items = read_manifest(index).num_items
    if num_items < MIN_ITEMS:
        console.print(
            f"No codes: the index has {num_items} images, "
            f"but learning codes needs at least {MIN_ITEMS}"
        )
        return
    from indexer.learned.encode import encode

    facts = encode(index)
    console.print(f"{facts.num_bits} bits per image, learned from {facts.num_fitted:,} images")


def _are_drawn(figures: Path, index: Path) -> bool:
    """Whether all figures exist and are not older than the index."""
    files = [figures / name for name in FIGURE_FILES]
    made_at = (index / MANIFEST_FILE).stat().st_mtime
    return all(file.exists() and file.stat().st_mtime >= made_at for file in files)


def _draw(model: Path, index: Path, figures: Path) -> None:
    from indexer.reports.figures import draw_figures

    draw_figures(model, index, figures)
