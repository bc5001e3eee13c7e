"""`lookalike search`, `classify`, `figures`, `report`, and the group `lookalike index`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.commands import changes, learned, reports
from indexer.commands.options import AsJson, DeviceOption, IndexDirectory, PrecisionOption
from indexer.commands.printing import print_json
from indexer.learned.probe import By
from indexer.metrics import DEFAULT_RERANK, MAX_FLIPS, QUERY_METRICS, parse_metric, resolve_rerank
from training.errors import UserError
from training.naming import one_line, storable
from training.progress import console

if TYPE_CHECKING:
    from indexer.search.searcher import Match

app = typer.Typer(no_args_is_help=True)
index_app = typer.Typer(no_args_is_help=True, help="Make, maintain and report on an index.")
for commands in (changes, learned, reports):
    index_app.add_typer(commands.app)
app.add_typer(index_app, name="index")

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", show_default=False, help="Image files.")
]
MetricOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(QUERY_METRICS),
        help="Distance for the search: euclidean and cosine compare features, hamming compares "
        "codes.",
    ),
]
RerankOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default=False,
        help="With hamming: number of nearest codes that are ranked again by Euclidean distance. "
        f"The default is {DEFAULT_RERANK}. With 0, items are ranked by their codes only.",
    ),
]
FlipsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_FLIPS,
        show_default=False,
        help="With hamming: search only items whose short address differs in at most this many "
        "bits. The search time then hardly depends on the size of INDEX.",
    ),
]


@app.command()
def search(
    index: IndexDirectory,
    images: Images,
    k: Annotated[int, typer.Option("-k", min=1, help="The number of look-alikes.")] = 6,
    metric: MetricOption = "euclidean",
    rerank: RerankOption = None,
    flips: FlipsOption = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Search only items with this label. May be repeated: an item with any of the "
            "labels is searched. The search is then exact."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The model directory. By default, the index's own copy of the model is used."
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the indexed images that are most similar to each IMAGE."""
    from indexer.opening import open_index

    parsed_metric = parse_metric(metric)
    rerank = resolve_rerank(parsed_metric, rerank, flips)
    opened = open_index(index, model, device=device, precision=precision)
    _check_exist(images)
    labels = [storable(one) for one in label] if label else None
    answers = opened.similar(
        images, k, metric=parsed_metric, label=labels, rerank=rerank, flips=flips
    )
    if as_json:
        results = [
            {"filename": str(image), "matches": [_to_json(match) for match in matches]}
            for image, matches in zip(images, answers, strict=True)
        ]
        names = {"index": opened.index.name, "commit": opened.index.manifest.commit}
        network = {"model": opened.embedder.card.id, "precision": opened.embedder.precision}
        print_json({**network, **names, "metric": metric, "results": results})
        return
    are_bits = parsed_metric == "hamming" and not rerank
    _print_matches(images, answers, 0 if are_bits else 4 if parsed_metric == "cosine" else 3)


@app.command()
def classify(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|INDEX", show_default=False, help="A model directory or an index."
        ),
    ],
    images: Images,
    by: Annotated[
        By,
        typer.Option(
            help="Source of the class names: the network's classes, or the labels of the items in "
            "the index."
        ),
    ] = "classes",
    k: Annotated[int, typer.Option("-k", min=1, help="The number of classes.")] = 5,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Print the most probable classes of each IMAGE.

    With --by items, the classes are the labels of the items, predicted by the probe of INDEX.
    """
    from indexer.opening import open_classifier

    classifier = open_classifier(model, by=by, device=device, precision=precision)
    _check_exist(images)
    answers = classifier.classify(images, k)
    if as_json:
        results = [
            {"filename": str(image), "classes": [asdict(score) for score in scores]}
            for image, scores in zip(images, answers, strict=True)
        ]
        embedder = classifier.embedder
        network = {"model": embedder.card.id, "precision": embedder.precision}
        print_json({**network, "by": by, "results": results})
        return
    for image, scores in zip(images, answers, strict=True):
        print(one_line(str(image)))
        for score in scores:
            print(f"  {score.probability:7.2%}  {one_line(score.name)}")


@app.command()
def figures(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", show_default=False, help="A model directory.")
    ],
    out: Annotated[Path, typer.Option(show_default=False, help="The folder for the PNG files.")],
    index: Annotated[Path | None, typer.Option(help="The index directory, for Figure 4.")] = None,
    ablation: Annotated[
        Path | None, typer.Option(help="A directory that `ablate` wrote, for Figure 1.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="The test images of Figure 4. The default is the model's held-out images."
        ),
    ] = None,
) -> None:
    """Draw the paper's figures for this model."""
    from indexer.reports.figures import draw_figures

    for file in draw_figures(model, index, out, data=data, ablation=ablation):
        console.print(f"Drew {file}")


@app.command()
def report(
    index: IndexDirectory,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write the report to this file, with pictures."),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images that are not in INDEX. The answers for them are measured too.",
        ),
    ] = None,
    device: DeviceOption = "cpu",
    as_json: AsJson = False,
) -> None:
    """Report how good the answers of INDEX are, which labels look wrong, and what would help."""
    from indexer.reports.collection.text import summary_lines
    from indexer.reports.collection_report import report_collection

    result = report_collection(index, out, queries=queries, device=device)
    if as_json:
        print_json(asdict(result))
        return
    for line in summary_lines(result):
        print(line)
    print(f"Wrote {out}" if out else "To see pictures, pass --out FILE.html")


def _print_matches(
    images: Sequence[Path], answers: Sequence[Sequence["Match"]], num_digits: int
) -> None:
    for image, matches in zip(images, answers, strict=True):
        print(one_line(str(image)))
        for match in matches:
            label = one_line(match.label or "-")
            print(f"  {match.distance:9.{num_digits}f}  {label}  {one_line(match.path)}")


def _to_json(match: "Match") -> dict[str, Any]:
    item = match.item
    return {"id": item.id, "path": item.path, "label": item.label, "distance": match.distance}


def _check_exist(images: Sequence[Path]) -> None:
    for image in images:
        if not image.exists():
            raise UserError(f"{image} does not exist; pass image files")
