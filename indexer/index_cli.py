"""`lookalike index ...`: make an index, keep it, and ask what it is worth."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from indexer.search.kinds import KINDS, describe, format_size, parse_kind, parse_memory
from indexer.storage.codes import DEFAULT_BITS
from training.data.datasets import Part
from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.devices import Device
from training.errors import UserError
from training.progress import one_line

if TYPE_CHECKING:
    from indexer.search.kinds import KindChoice
    from indexer.updates.build import Report

NUM_SHOWN_GROUPS = 10

app = typer.Typer(no_args_is_help=True, help="Make and keep an index.")

IndexDirectory = Annotated[
    Path, typer.Argument(metavar="INDEX", show_default=False, help="An index directory.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(KINDS),
        help="How to search; auto is exact while that is fast, then what the memory holds.",
        show_default=False,
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What searching may take, as in 4GB; else half of the memory.",
        show_default=False,
    ),
]


@app.command()
def build(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="A folder of images, a CSV (path,label), tar shards, or digits.",
        ),
    ],
    model: Annotated[
        Path, typer.Option(show_default=False, help="The model directory that makes the features.")
    ],
    out: Annotated[Path, typer.Option(show_default=False, help="The index directory.")],
    part: Annotated[
        Part,
        typer.Option(help="Only the images that training learns from, or only those it holds out."),
    ] = "all",
    device: DeviceOption = "auto",
    kind: KindOption = None,
    memory: MemoryOption = None,
) -> None:
    """Index DATA, or bring the index that is there up to date; an interrupted build goes on."""
    choice, memory_bytes = _parsed(kind, memory)
    from indexer.updates.build import build as build_index

    _print_report(
        build_index(
            data, model, out, part=part, device=device, kind=choice, memory_bytes=memory_bytes
        ),
        out,
    )


@app.command()
def add(
    index: IndexDirectory,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...", show_default=False, help="Folders, image files, tar shards or CSVs."
        ),
    ],
    prefix: Annotated[str, typer.Option(help="Goes before every path, as in 2024/.")] = "",
    model: Annotated[
        Path | None,
        typer.Option(help="The model directory, to embed on a GPU; else the index's own copy."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Add images to INDEX. Bytes that are in it already are left out; an image with the path of another takes its place."""
    from indexer.updates.build import add as add_images

    _print_report(
        add_images(index, data, prefix=prefix, model_directory=model, device=device), index
    )


@app.command()
def remove(
    index: IndexDirectory,
    id: Annotated[
        list[int] | None, typer.Option(help="An item's id; may be repeated, as all of these.")
    ] = None,
    path: Annotated[list[str] | None, typer.Option(help="An item's path.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label, of which all items go.")] = None,
) -> None:
    """Remove items from INDEX by id, path or label: all that are named, or, where one is unknown, none."""
    from indexer.updates.build import remove as remove_items

    if not (id or path or label):
        raise UserError("remove needs to know which items; pass --id, --path or --label")
    num_removed = remove_items(index, ids=id or (), paths=path or (), labels=label or ())
    print(
        f"{num_removed:,} images removed; their room is given back by: lookalike index compact {index}"
    )


@app.command()
def compact(
    index: IndexDirectory,
    force: Annotated[
        bool, typer.Option("--force", help="Even where little would be gained.")
    ] = False,
    kind: KindOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Give back the room of removed items, once they are a fifth of the rows; --kind changes how INDEX is searched."""
    choice, memory_bytes = _parsed(kind, memory)
    from indexer.updates.compact import WORTHWHILE_SHARE
    from indexer.updates.compact import compact as compact_index

    done = compact_index(index, force=force, kind=choice, memory_bytes=memory_bytes, device=device)
    if done.num_freed_bytes:
        print(f"{done.num_freed_bytes:,} bytes freed, {done.num_items:,} images kept")
    elif done.num_removed:
        print(
            f"{done.num_removed:,} removed beside {done.num_items:,} images: under {WORTHWHILE_SHARE:.0%}; pass --force to compact now"
        )
    elif choice is None and memory_bytes is None:
        print("nothing to compact")
    if memory_bytes is not None:
        print(f"searching may take {format_size(memory_bytes)} from now on")
    if choice is not None or memory_bytes is not None:
        print(
            "searched exactly"
            if done.kind == "flat"
            else f"searched by {done.kind}; `lookalike index stats {index}` has its recall"
        )


@app.command()
def verify(
    index: IndexDirectory,
    mend: Annotated[
        bool, typer.Option("--mend", help="Restore what can be restored, drop the rest.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="The model directory, from which --mend restores the index's own copy."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of INDEX; exit status 1 where one is not as it was written, with what is lost and how to mend it."""
    from indexer.updates.verify import mend as mend_index
    from indexer.updates.verify import verify as verify_index

    if model and not mend:
        raise UserError(
            "verify takes --model to restore the index's copy of it; pass --mend too, or leave it out"
        )
    if mend:
        print(f"{mend_index(index, model):,} images kept")
    found = verify_index(index)
    if as_json:
        print(json.dumps(asdict(found) | {"is_clean": found.is_clean}, indent=2))
    else:
        for damage in found.damages:
            print(f"{damage.file} {damage.what}; {damage.remedy}")
        for item in found.lost:
            id, path = (
                item.id or "of unknown id",
                one_line(item.path) if item.path else "of unknown path",
            )
            print(f"lost: item {id}, {path} ({', '.join(item.parts)})")
        if found.is_clean:
            print(f"clean: {found.num_items:,} images, {found.num_bytes:,} bytes")
    if not found.is_clean:
        raise typer.Exit(1)


@app.command()
def stats(index: IndexDirectory, as_json: AsJson = False) -> None:
    """Print what an index holds."""
    from indexer.storage.index import Index

    found = Index.open(index).stats()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name not in ("labels", "search", "probe", "codes"):
            print(f"{name:>16}  {value}")
    for metric, facts in found["search"].items():
        print(f"{metric:>16}  {describe(facts)}")
    print(
        f"{'labels':>16}  "
        + ", ".join(f"{one_line(label)} ({count:,})" for label, count in found["labels"].items())
    )
    if facts := found["probe"]:
        labels, num_fitted, accuracy = (
            facts["labels"],
            facts["num_fitted"],
            _share(facts["accuracy"]),
        )
        print(
            f"{'probe':>16}  {len(labels):,} labels, fitted on {num_fitted:,} items of commit {facts['commit']}, accuracy {accuracy}"
        )
    if facts := found["codes"]:
        num_bits, num_fitted, num_bytes = facts["num_bits"], facts["num_fitted"], facts["num_bytes"]
        print(
            f"{'codes':>16}  {num_bits:,} bits, learnt from {num_fitted:,} items of commit {facts['commit']}, {num_bytes:,} bytes"
        )


@app.command()
def probe(index: IndexDirectory, as_json: AsJson = False) -> None:
    """Fit a classifier of the items' own labels, keep it in INDEX, and say how good it is on a fifth that is held out.

    `classify INDEX IMAGE --by items` and `POST /classify?by=items` answer with it. Fit it again when items have come or gone.
    """
    from indexer.learned.probe import NUM_VOTERS, make

    facts = make(index)
    if as_json:
        print(json.dumps(asdict(facts), indent=2))
        return
    some = (
        f"a sample of {facts.num_fitted:,} of {facts.num_items:,}"
        if facts.num_fitted < facts.num_items
        else f"{facts.num_items:,}"
    )
    chosen = f"{facts.scaling} scaling, C {facts.inverse_penalty:g}"
    print(
        f"{index} keeps a probe of {len(facts.labels):,} labels, fitted on {some} items; {chosen}"
    )
    if facts.num_unlabelled:
        print(f"items without a label, left out: {facts.num_unlabelled:,}")
    if facts.accuracy is None:
        print(
            "no label has two items of different bytes, so none could be held out, and how good the probe is remains unknown"
        )
        return
    print(f"accuracy on {facts.num_held_out:,} held-out items, by what was fitted on the others:")
    print(f"{_share(facts.accuracy):>8}  the probe")
    print(f"{_share(facts.vote_euclidean):>8}  the vote of the {NUM_VOTERS} nearest, Euclidean")
    print(f"{_share(facts.vote_cosine):>8}  the vote of the {NUM_VOTERS} nearest, cosine")
    print(f"{_share(facts.chance):>8}  chance: always the most frequent label")


@app.command("map")
def map_(
    index: IndexDirectory,
    items: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default=False,
            help="At most so many items, a sample; 20,000 unless given, which take minutes.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lay the items out in two dimensions, what is alike together (t-SNE), and keep the map in INDEX.

    `lookalike serve` shows it on the page and at `GET /map`. Make it again when items have come.
    """
    from indexer.learned.item_map import MAX_ITEMS, make

    facts, files = make(index, max_items=MAX_ITEMS if items is None else items)
    if as_json:
        print(json.dumps(asdict(facts) | {"files": [str(file) for file in files]}, indent=2))
        return
    some = (
        f"a sample of {facts.num_shown:,} of {facts.num_items:,}"
        if facts.num_shown < facts.num_items
        else f"{facts.num_items:,}"
    )
    print(f"{index} keeps a map of {some} items")
    for file in files:
        print(f"Wrote {file}")


@app.command()
def encode(
    index: IndexDirectory,
    bits: Annotated[
        int, typer.Option(help="The length of a code: a multiple of 8 from 16 to 1024.")
    ] = DEFAULT_BITS,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn by chance.")] = 0,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn short binary codes from INDEX's own features and write one for each item; `search --metric hamming` finds by them.

    Items that are added later get theirs as they come. What was interrupted goes on.
    """
    from indexer.learned.encode import encode as encode_index

    facts = encode_index(index, num_bits=bits, seed=seed, device=device)
    if as_json:
        print(json.dumps(asdict(facts), indent=2))
        return
    print(
        f"{index} has codes of {facts.num_bits} bits, {facts.num_bits // 8} bytes an image, learnt from {facts.num_fitted:,} items"
    )


@app.command()
def quality(
    index: IndexDirectory,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images that ask and are not in the index; else a sample of its own items does.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many look-alikes.")] = 10,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure recall against exact search, and precision and mAP by label, for each distance."""
    from indexer.reports.quality import measure

    report = measure(index, data=queries, k=k, device=device)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
        return
    asking = f"{report.num_queries:,} images of {queries} ask"
    if queries is None:
        asking = f"{report.num_queries:,} of its own items ask, each left out of its own answers and ranking"
    print(f"{index} holds {report.num_items:,} items, searched as {report.kind}; {asking}")
    print(f"{'distance':>22}  {f'recall@{k}':>14}  {f'precision@{k}':>14}  {'mAP':>6}")
    for row in report.results:
        recall, precision, mean = (
            "-" if figure is None else f"{figure:.4f}"
            for figure in (row.recall_at_k, row.precision_at_k, row.mean_average_precision)
        )
        name = f"{row.metric}, {row.rerank:,} reranked" if row.rerank else row.metric
        print(f"{name:>22}  {recall:>14}  {precision:>14}  {mean:>6}")
    if report.num_unlabelled:
        print(f"queries without a label, counted for recall only: {report.num_unlabelled:,}")
    if report.num_unanswerable:
        print(
            f"queries whose label no other item has, counted for recall only: {report.num_unanswerable:,}"
        )
    if report.num_skipped:
        print(f"queries that could not be read, skipped: {report.num_skipped:,}")


@app.command()
def export(
    index: IndexDirectory,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", show_default=False, help="The folder that the files go to."),
    ],
    format_: Annotated[
        Literal["parquet", "npy"],
        typer.Option("--format", help="One items.parquet, or features.npy beside items.csv."),
    ] = "parquet",
) -> None:
    """Write the items and their features as files that pandas and NumPy open."""
    from indexer.reports.export import export as export_index
    from indexer.storage.index import Index

    opened = Index.open(index)
    files = export_index(opened, out, format=format_)
    print(f"Wrote {opened.manifest.num_items:,} items to {' and '.join(map(str, files))}")


@app.command()
def duplicates(
    index: IndexDirectory,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write duplicates.html, with thumbnails, and duplicates.csv there."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The least similarity of near-identical images; 0.85 unless given; higher finds fewer.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find images that are in INDEX twice: byte for byte, or resized, compressed again, brightened or slightly cropped."""
    from indexer.reports.duplicates import SAME_PICTURE, find_duplicates
    from indexer.reports.duplicates_page import relation, summary, to_json, write_report
    from indexer.storage.index import Index

    threshold = SAME_PICTURE if threshold is None else threshold
    opened = Index.open(index)
    found = find_duplicates(opened, threshold=threshold)
    files = write_report(opened, found, out) if out else []
    if as_json:
        figures = {
            "num_items": found.num_items,
            "num_images": found.num_images,
            "num_identical": found.num_identical,
        }
        print(
            json.dumps(
                {
                    "threshold": threshold,
                    **figures,
                    "groups": [to_json(group) for group in found.groups],
                },
                indent=2,
            )
        )
        return
    print(summary(found))
    for number, group in enumerate(found.groups[:NUM_SHOWN_GROUPS], 1):
        print(f"group {number}, {group.kind}")
        for member in group.members[:NUM_SHOWN_GROUPS]:
            print(
                f"  {relation(member, group):>23}  {member.item.width:>5} x {member.item.height:<5}  {one_line(member.item.path)}"
            )
        if len(group.members) > NUM_SHOWN_GROUPS:
            print(f"  and {len(group.members) - NUM_SHOWN_GROUPS:,} more")
    if len(found.groups) > NUM_SHOWN_GROUPS:
        print(
            f"and {len(found.groups) - NUM_SHOWN_GROUPS:,} groups more"
            + ("" if out else "; pass --out DIR to see them all")
        )
    for file in files:
        print(f"Wrote {file}")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _parsed(kind: str | None, memory: str | None) -> "tuple[KindChoice | None, int | None]":
    return None if kind is None else parse_kind(kind), None if memory is None else parse_memory(
        memory
    )


def _print_report(report: "Report", directory: Path) -> None:
    print(
        f"{directory} holds {report.num_items:,} images: {report.num_added:,} added, {report.num_changed:,} changed, "
        f"{report.num_removed:,} removed, {report.num_unchanged:,} unchanged"
    )
    if report.skipped:
        print(describe_skipped(report.skipped, directory / SKIPPED_FILE))
