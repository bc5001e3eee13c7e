"""`lookalike search`, `classify`, `figures`, and `index` with all its own."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.embedder import likeliest
from indexer.index_cli import AsJson, DeviceOption, IndexDirectory
from indexer.index_cli import app as index_app
from indexer.learned.probe import By
from indexer.metrics import DEFAULT_RERANK, MAX_FLIPS, QUERY_METRICS, parse_metric
from training.data.examples import storable
from training.errors import UserError
from training.progress import console, one_line

app = typer.Typer(no_args_is_help=True)
app.add_typer(index_app, name="index")

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", show_default=False, help="Image files.")
]
ModelDirectory = Annotated[
    Path, typer.Argument(metavar="MODEL", show_default=False, help="A model directory.")
]


@app.command()
def search(
    index: IndexDirectory,
    images: Images,
    k: Annotated[int, typer.Option("-k", min=1, help="How many look-alikes.")] = 6,
    metric: Annotated[
        str,
        typer.Option(
            metavar="|".join(QUERY_METRICS), help="The distance between features, or between codes."
        ),
    ] = "euclidean",
    rerank: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default=False,
            help=f"With hamming: rank so many of the nearest by code by Euclidean distance, {DEFAULT_RERANK} unless given; 0: none.",
        ),
    ] = None,
    flips: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_FLIPS,
            show_default=False,
            help="With hamming: look only where at most so many bits of a short address differ, however large INDEX is.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Only items of this label.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model directory, if not the index's own copy.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the indexed images most like each IMAGE."""
    from indexer.answers import answer
    from indexer.opening import open_for_queries

    by = parse_metric(metric)
    for name, value in (("--rerank", rerank), ("--flips", flips)):
        if value is not None and by != "hamming":
            raise UserError(
                f"{name} is for codes only; pass --metric hamming with it, or leave it out with --metric {by}"
            )
    rerank = DEFAULT_RERANK if rerank is None else rerank
    opened, embedder, searcher = open_for_queries(index, model, device=device)
    label = None if label is None else storable(label)
    if label is not None and label not in opened.labels():
        raise UserError(
            f"no item has the label {label}; there are: {', '.join(list(opened.labels())[:20])}"
        )
    sources = _existing(images)
    results = [
        found.matches
        for found in answer(
            sources, embedder, searcher, k=k, metric=by, label=label, rerank=rerank, flips=flips
        )
    ]
    if as_json:
        rows = [
            {
                "filename": str(image),
                "matches": [{**_item(match.item), "distance": match.distance} for match in matches],
            }
            for image, matches in zip(images, results, strict=True)
        ]
        print(
            json.dumps(
                {
                    "model": embedder.card.id,
                    "index": opened.manifest.commit,
                    "metric": metric,
                    "results": rows,
                },
                indent=2,
            )
        )
        return
    num_digits = 4 if by == "cosine" else 0 if by == "hamming" and not rerank else 3
    for image, matches in zip(images, results, strict=True):
        print(image)
        for match in matches:
            print(
                f"  {match.distance:9.{num_digits}f}  {one_line(match.item.label or '-')}  {one_line(match.item.path)}"
            )


@app.command()
def classify(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|INDEX", show_default=False, help="A model directory, or an index."
        ),
    ],
    images: Images,
    by: Annotated[
        By,
        typer.Option(
            help="The network's own classes, or the labels of the index's items, by its probe."
        ),
    ] = "classes",
    k: Annotated[int, typer.Option("-k", min=1, help="How many classes.")] = 5,
    device: DeviceOption = "cpu",
    as_json: AsJson = False,
) -> None:
    """Name the likeliest classes of each IMAGE: the network's, or the labels of an index's items."""
    from indexer.answers import answer
    from indexer.opening import open_for_classifying

    embedder, probe = open_for_classifying(model, by=by, device=device)
    answers = answer(_existing(images), embedder)
    if probe:
        results = [
            likeliest(probe.logits(found.feature[None])[0], probe.facts.labels, k)
            for found in answers
        ]
    else:
        results = [likeliest(found.logits, embedder.card.class_names, k) for found in answers]
    if as_json:
        rows = [
            {"filename": str(image), "classes": [asdict(score) for score in scores]}
            for image, scores in zip(images, results, strict=True)
        ]
        print(json.dumps({"model": embedder.card.id, "by": by, "results": rows}, indent=2))
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
    ablation: Annotated[
        Path | None, typer.Option(help="An `ablate` directory, for Figure 1.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Where Figure 4's test images come from; else the model's held-out ones."
        ),
    ] = None,
) -> None:
    """Draw the paper's figures from this model."""
    from indexer.reports.figures import draw_figures

    for file in draw_figures(model, index, out, data=data, ablation=ablation):
        console.print(f"Drew {file}")


def _existing(images: list[Path]) -> list[Path | bytes]:
    for image in images:
        if not image.exists():
            raise UserError(f"{image} does not exist; pass image files")
    return list(images)


def _item(item: Any) -> dict[str, Any]:
    return {"id": item.id, "path": item.path, "label": item.label}
