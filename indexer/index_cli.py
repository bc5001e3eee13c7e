"""`lookalike index ...`: make an index, keep it, and ask what it is worth."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from indexer.embedder import Device
from training.cache import SKIPPED_FILE, describe_skipped
from training.datasets import Part

app = typer.Typer(no_args_is_help=True, help="Make and keep an index.")

IndexDirectory = Annotated[Path, typer.Argument(metavar="INDEX", show_default=False, help="An index directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")]


@app.command()
def build(
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False, help="A folder of images, a CSV (path,label), or digits.")],
    model: Annotated[Path, typer.Option(show_default=False, help="The model directory that makes the features.")],
    out: Annotated[Path, typer.Option(show_default=False, help="The index directory.")],
    part: Annotated[Part, typer.Option(help="Only the images that training learns from, or only those it holds out.")] = "all",
    device: DeviceOption = "auto",
) -> None:
    """Index DATA, or bring the index that is there up to date; an interrupted build goes on."""
    from indexer.batch import build as build_index

    report = build_index(data, model, out, part=part, device=device)
    print(
        f"{out} holds {report.num_items:,} images: {report.num_added:,} added, {report.num_changed:,} changed, "
        f"{report.num_removed:,} removed, {report.num_unchanged:,} unchanged"
    )
    if report.skipped:
        print(describe_skipped(report.skipped, out / SKIPPED_FILE))


@app.command()
def stats(index: IndexDirectory, as_json: AsJson = False) -> None:
    """Print what an index holds."""
    from indexer.index import Index

    with closing(Index.open(index)) as opened:
        found = opened.stats()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name != "labels":
            print(f"{name:>16}  {value}")
    print(f"{'labels':>16}  " + ", ".join(f"{label} ({count:,})" for label, count in found["labels"].items()))
