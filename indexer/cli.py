"""`lookalike search`, `classify`, `figures`, and `index` with all its own."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.embedder import Embedder, likeliest
from indexer.index_cli import AsJson, DeviceOption, IndexDirectory
from indexer.index_cli import app as index_app
from training.errors import UserError
from training.progress import console

app = typer.Typer(no_args_is_help=True)
app.add_typer(index_app, name="index")

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", show_default=False, help="Image files.")]
ModelDirectory = Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="A model directory.")]


@app.command()
def search(
    index: IndexDirectory,
    images: Images,
    k: Annotated[int, typer.Option("-k", min=1, help="How many look-alikes.")] = 6,
    metric: Annotated[str, typer.Option(help="The distance: euclidean.")] = "euclidean",
    label: Annotated[str | None, typer.Option(help="Only items of this label.")] = None,
    model: Annotated[Path | None, typer.Option(help="The model directory, if not the index's own copy.")] = None,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the indexed images most like each IMAGE."""
    from indexer.bundle import open_for_queries
    from indexer.queries import answer

    if metric != "euclidean":
        raise UserError(f"this index is searched by euclidean distance; got {metric}")
    opened, embedder, searcher = open_for_queries(index, model, device=device)
    if label is not None and label not in opened.labels():
        raise UserError(f"no item has the label {label}; there are: {', '.join(list(opened.labels())[:20])}")
    sources = _existing(images)
    results = [found.matches for found in answer(sources, embedder, searcher, k=k, label=label)]
    if as_json:
        rows = [
            {"filename": str(image), "matches": [{**_item(match.item), "distance": match.distance} for match in matches]}
            for image, matches in zip(images, results, strict=True)
        ]
        print(json.dumps({"model": embedder.card.id, "index": opened.manifest.commit, "metric": metric, "results": rows}, indent=2))
        return
    for image, matches in zip(images, results, strict=True):
        print(image)
        for match in matches:
            print(f"  {match.distance:9.3f}  {match.item.label or '-'}  {match.item.path}")


@app.command()
def classify(
    model: ModelDirectory,
    images: Images,
    k: Annotated[int, typer.Option("-k", min=1, help="How many classes.")] = 5,
    device: DeviceOption = "cpu",
    as_json: AsJson = False,
) -> None:
    """Name the likeliest classes of each IMAGE."""
    from indexer.queries import answer

    embedder = Embedder(model, device=device)
    results = [likeliest(found.logits, embedder.card.class_names, k) for found in answer(_existing(images), embedder)]
    if as_json:
        rows = [
            {"filename": str(image), "classes": [asdict(score) for score in scores]} for image, scores in zip(images, results, strict=True)
        ]
        print(json.dumps({"model": embedder.card.id, "results": rows}, indent=2))
        return
    for image, scores in zip(images, results, strict=True):
        print(image)
        for score in scores:
            print(f"  {score.probability:7.2%}  {score.name}")


@app.command()
def figures(
    model: ModelDirectory,
    out: Annotated[Path, typer.Option(show_default=False, help="Where the PNG files go.")],
    index: Annotated[Path | None, typer.Option(help="The index directory, for Figure 4.")] = None,
    ablation: Annotated[Path | None, typer.Option(help="An `ablate` directory, for Figure 1.")] = None,
    data: Annotated[str | None, typer.Option(help="Where Figure 4's test images come from; else the model's held-out ones.")] = None,
) -> None:
    """Draw the paper's figures from this model."""
    from indexer.figures import draw_figures

    for file in draw_figures(model, index, out, data=data, ablation=ablation):
        console.print(f"Drew {file}")


def _existing(images: list[Path]) -> list[Path | bytes]:
    for image in images:
        if not image.exists():
            raise UserError(f"{image} does not exist; pass image files")
    return list(images)


def _item(item: Any) -> dict[str, Any]:
    return {"id": item.id, "path": item.path, "label": item.label}
