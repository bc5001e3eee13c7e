"""`lookalike index stats`, `quality`, `duplicates` and `export`: report on what an index holds."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from indexer.commands.options import AsJson, DeviceOption, IndexDirectory
from indexer.commands.printing import format_share, print_json
from training.naming import one_line

if TYPE_CHECKING:
    from indexer.reports.duplicates import Duplicates
    from indexer.reports.quality import QualityReport

NUM_SHOWN_GROUPS = 10
"""Maximum number of groups that `duplicates` prints, and of images per group."""

app = typer.Typer()

Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Write paths and labels as they are. Without this option, a text that a spreadsheet "
        "would take for a formula begins with an apostrophe.",
    ),
]


@app.command()
def stats(index: IndexDirectory, as_json: AsJson = False) -> None:
    """Print what an index holds."""
    from indexer.storage.index import Index

    facts = asdict(Index.open(index).stats())
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if name not in ("labels", "search", "probe", "codes", "distance_comparison"):
            _print_fact(name, value)
    for metric, structure in facts["search"].items():
        _print_fact(metric, _describe_structure(structure))
    counts = [f"{one_line(label)} ({count:,})" for label, count in facts["labels"].items()]
    _print_fact("labels", ", ".join(counts))
    if probe := facts["probe"]:
        _print_fact(
            "probe",
            f"{len(probe['labels']):,} labels, fitted on {probe['num_fitted']:,} items "
            f"of commit {probe['commit']}, accuracy {format_share(probe['accuracy'])}",
        )
    if codes := facts["codes"]:
        _print_fact(
            "codes",
            f"{codes['num_bits']:,} bits, learned from {codes['num_fitted']:,} items "
            f"of commit {codes['commit']}, {codes['num_bytes']:,} bytes",
        )
    if comparison := facts["distance_comparison"]:
        _print_fact("better_metric", _describe_comparison(comparison))


@app.command()
def quality(
    index: IndexDirectory,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Query images that are not in the index. By default, a sample of the index's "
            "items.",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("-k", min=1, max=1000, help="The number of look-alikes per query.")
    ] = 10,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure the quality of the search for each distance.

    Recall compares the answers with exact search. Precision and mAP compare the labels. INDEX keeps
    which distance ranks better, and the web page starts with it.
    """
    from indexer.reports.distance_choice import better_metric, store_choice
    from indexer.reports.quality import measure

    report = measure(index, data=queries, k=k, device=device)
    store_choice(index, report.feature_precisions, k=k, commit=report.commit)
    if as_json:
        print_json(asdict(report) | {"better_metric": better_metric(report.feature_precisions)})
    else:
        _print_quality(index, queries, k, report)


@app.command()
def export(
    index: IndexDirectory,
    out: Annotated[
        Path, typer.Option(metavar="DIR", show_default=False, help="The folder for the files.")
    ],
    format_: Annotated[
        Literal["parquet", "npy"],
        typer.Option(
            "--format", help="parquet writes items.parquet; npy writes features.npy and items.csv."
        ),
    ] = "parquet",
    raw: Raw = False,
) -> None:
    """Write the items and their features as files that pandas and NumPy can open."""
    from indexer.reports.export import export as export_index
    from indexer.storage.index import Index

    opened = Index.open(index)
    files = export_index(opened, out, format=format_, raw=raw)
    print(f"Wrote {opened.manifest.num_items:,} items to {' and '.join(map(str, files))}")


@app.command()
def duplicates(
    index: IndexDirectory,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write duplicates.html, with thumbnails, and duplicates.csv to this folder.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            show_default=False,
            help="Minimum similarity of near-identical images. The default is 0.85. A higher "
            "threshold gives fewer groups.",
        ),
    ] = None,
    raw: Raw = False,
    as_json: AsJson = False,
) -> None:
    """List images that are in INDEX more than once.

    The copies may have the same bytes, or they may be resized, compressed again, brightened or
    slightly cropped.
    """
    from indexer.reports.duplicates import SAME_PICTURE, find_duplicates
    from indexer.reports.duplicates_page import to_json, write_report
    from indexer.storage.index import Index

    threshold = SAME_PICTURE if threshold is None else threshold
    opened = Index.open(index)
    result = find_duplicates(opened, threshold=threshold)
    files = write_report(opened, result, out, raw=raw) if out else []
    if as_json:
        print_json(
            {
                "threshold": threshold,
                "num_items": result.num_items,
                "num_images": result.num_images,
                "num_identical": result.num_identical,
                "groups": [to_json(group) for group in result.groups],
            }
        )
        return
    _print_groups(result, are_all_in_file=out is not None)
    for file in files:
        print(f"Wrote {file}")


def _print_fact(name: str, value: Any) -> None:
    print(f"{name:>16}  {value}")


def _describe_structure(facts: Mapping[str, Any]) -> str:
    """One line about a FAISS structure, made from its facts in the manifest."""
    recall = f"recall@10 {facts['recall_at_10']:.4f} over {facts['num_queries']:,} queries"
    size = f"{facts['num_covered']:,} items, {facts['num_bytes']:,} bytes"
    return f"{facts['kind']}, {recall}, {size}"


def _describe_comparison(facts: Mapping[str, Any]) -> str:
    """One line about a stored comparison of the distances."""
    shares = ", ".join(
        f"{metric} {format_share(share)}" for metric, share in facts["precisions"].items()
    )
    return (
        f"{facts['better_metric']}; share of the {facts['k']} nearest with the query's label "
        f"at commit {facts['commit']}: {shares}"
    )


def _print_quality(index: Path, queries: str | None, k: int, report: "QualityReport") -> None:
    from indexer.reports.distance_choice import describe_choice

    print(
        f"{index} holds {report.num_items:,} items, searched as {report.kind}; "
        + (
            f"{report.num_queries:,} of its own items are the queries, "
            "each left out of its own answers and ranking"
            if queries is None
            else f"{report.num_queries:,} images of {queries} are the queries"
        )
    )
    print(f"{'distance':>22}  {f'recall@{k}':>14}  {f'precision@{k}':>14}  {'mAP':>6}")
    for row in report.results:
        figures = (row.recall_at_k, row.precision_at_k, row.mean_average_precision)
        recall, precision, mean = ("-" if value is None else f"{value:.4f}" for value in figures)
        name = f"{row.metric}, {row.rerank:,} reranked" if row.rerank else row.metric
        print(f"{name:>22}  {recall:>14}  {precision:>14}  {mean:>6}")
    for count, what in (
        (report.num_unlabelled, "queries without a label, counted for recall only"),
        (report.num_unanswerable, "queries whose label no other item has, counted for recall only"),
        (report.num_skipped, "queries that could not be read, skipped"),
    ):
        if count:
            print(f"{what}: {count:,}")
    if sentence := describe_choice(report.feature_precisions, k):
        print(sentence)


def _print_groups(duplicates: "Duplicates", *, are_all_in_file: bool) -> None:
    from indexer.reports.duplicates_page import relation, summary

    print(summary(duplicates))
    for number, group in enumerate(duplicates.groups[:NUM_SHOWN_GROUPS], 1):
        print(f"group {number}, {group.kind}")
        for member in group.members[:NUM_SHOWN_GROUPS]:
            size = f"{member.item.width:>5} x {member.item.height:<5}"
            print(f"  {relation(member, group):>23}  {size}  {one_line(member.item.path)}")
        if (num_more := len(group.members) - NUM_SHOWN_GROUPS) > 0:
            print(f"  and {num_more:,} more")
    if (num_more := len(duplicates.groups) - NUM_SHOWN_GROUPS) > 0:
        remedy = "" if are_all_in_file else "; pass --out DIR to see them all"
        print(f"and {num_more:,} more groups{remedy}")
