"""The command `lookalike demo`: make a network, index, encode, draw the figures and serve.

Finished steps are not repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from indexer.storage.codes import MIN_CODED_ITEMS
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, PROBE, read_manifest
from service.demo_network import make_network
from service.demo_start import Start, choose_start
from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.network.model import CARD_FILE, FROM_SCRATCH, read_card
from training.progress import console

app = typer.Typer()

FIGURE_FILES = ("figure-3.png", "figure-4.png")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the demo. It writes to the directory or the file `result`."""

    title: str
    result: Path
    is_done: Callable[[], bool]
    make: Callable[[], None]


# Arguments and options.

Data = Annotated[
    str,
    typer.Argument(
        metavar="[DATA]", help="A folder of class folders, a CSV, tar shards, or digits."
    ),
]
Workdir = Annotated[Path, typer.Option(help="Directory for the model, the index and the figures.")]
Serve = Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the index at the end.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on. 0 means any free port.")
]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="imagenet|none|MODEL|FILE",
        help="The network to start from: torchvision's ImageNet weights, none to train from "
        "scratch, a model directory, or a weights file. By default, imagenet if the weights "
        "are at hand or can be downloaded, and none for digits.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Number of passes over the images in training. Without it, a network of --init is "
        "only fine-tuned if a short trial shows that this is better."
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that the network sees, in pixels. By default, it follows from "
        "the number of images, and is at most 128."
    ),
]


@app.command()
def demo(
    data: Data = "digits",
    workdir: Workdir = Path("lookalike-demo"),
    serve: Serve = True,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    init: Init = None,
    epochs: Epochs = None,
    image_size: ImageSize = None,
) -> None:
    """Go from a folder of images to answers in a browser.

    Make a network, index the images, make binary codes, draw the figures, and serve the index. With
    ImageNet weights, a network is ready within a minute, and it learns your labels from your
    images. From scratch, a network is trained on your images.
    """
    start = choose_start(data, workdir, init=init, epochs=epochs, image_size=image_size)
    steps = _steps(start, workdir)
    for number, step in enumerate(steps, 1):
        _run(number, step)
    index = workdir / "index"
    if serve:
        from service.cli import serve as serve_index

        console.print(f"Step {len(steps) + 1}: Serve {index}")
        serve_index(index, host=host, port=port)
    else:
        console.print(f"To serve the index, run: lookalike serve {index}")


def _steps(start: Start, workdir: Path) -> list[Step]:
    model, index, figures = workdir / "model", workdir / "index", workdir / "figures"
    network = Step(
        title="Train a network" if start.is_trained else f"Use the network {start.init}",
        result=model,
        is_done=(model / CARD_FILE).exists,
        make=lambda: make_network(start, model),
    )
    indexing = Step(
        title="Index the images",
        result=index,
        is_done=lambda: _is_indexed(index, model),
        make=lambda: _index(start.data, model, index),
    )
    probe = Step(
        title="Learn the labels",
        result=index,
        is_done=lambda: PROBE in read_manifest(index).artefacts,
        make=lambda: _fit_probe(index),
    )
    codes = Step(
        title="Make binary codes",
        result=index,
        is_done=lambda: read_manifest(index).has_codes,
        make=lambda: _encode(index),
    )
    drawing = Step(
        title="Draw the figures",
        result=figures,
        is_done=lambda: _are_drawn(figures, index),
        make=lambda: _draw(model, index, figures, start.data),
    )
    report = workdir / "report.html"
    judging = Step(
        title="Report how good the answers are",
        result=report,
        is_done=lambda: _is_newer(report, index),
        make=lambda: _report(index, report),
    )
    # The report changes the index, because the index keeps which distance ranks better. So the
    # figures, which must not be older than the index, are drawn after the report.
    probes = [] if start.init == FROM_SCRATCH else [probe]
    return [network, indexing, *probes, codes, judging, drawing]


def _run(number: int, step: Step) -> None:
    if step.is_done():
        console.print(f"Step {number}: {step.title}: already done, in {step.result}")
        return
    console.print(f"Step {number}: {step.title}, into {step.result}")
    step.make()


def _fit_probe(index: Path) -> None:
    from indexer.learned.probe_fitting import MAX_LABELS, make_probe

    num_labels = len(Index.open(index).labels())
    if not 2 <= num_labels <= MAX_LABELS:
        console.print(
            f"No probe: the images have {num_labels:,} labels, "
            f"but a probe needs 2 to {MAX_LABELS:,}; classes are those of the network"
        )
        return
    facts = make_probe(index)
    accuracy = "too few images to measure it"
    if facts.accuracy is not None:
        accuracy = f"top-1 {facts.accuracy:.2%} (chance: {facts.chance:.2%})"
    console.print(f"{num_labels:,} labels; held-out images: {accuracy}")


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
    if num_items < MIN_CODED_ITEMS:
        console.print(
            f"No codes: the index has {num_items} images, "
            f"but learning codes needs at least {MIN_CODED_ITEMS}"
        )
        return
    from indexer.learned.encode import encode

    facts = encode(index)
    console.print(f"{facts.num_bits} bits per image, learned from {facts.num_fitted:,} images")


def _are_drawn(figures: Path, index: Path) -> bool:
    return all(_is_newer(figures / name, index) for name in FIGURE_FILES)


def _is_newer(file: Path, index: Path) -> bool:
    """Whether a file exists and is not older than the index."""
    made_at = (index / MANIFEST_FILE).stat().st_mtime
    return file.exists() and file.stat().st_mtime >= made_at


def _draw(model: Path, index: Path, figures: Path, data: str) -> None:
    """Draw the figures. Figure 4 shows images of `data`.

    If the network was trained on `data`, Figure 4 shows only images that this training held out.
    """
    from indexer.reports.figures import draw_figures
    from training.learning.training_images import absolute_name

    trained_on = read_card(model).data.get("name")
    is_trained_on_data = trained_on and absolute_name(str(trained_on)) == absolute_name(data)
    draw_figures(model, index, figures, data=None if is_trained_on_data else data)


def _report(index: Path, file: Path) -> None:
    from indexer.reports.collection.text import summary_lines
    from indexer.reports.collection_report import report_collection

    for line in summary_lines(report_collection(index, file)):
        console.print(line)
