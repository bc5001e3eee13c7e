"""`lookalike index build`, `add`, `remove`, `compact` and `verify`: make and maintain an index."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.commands.options import AsJson, DeviceOption, IndexDirectory, KindOption, MemoryOption
from indexer.commands.printing import print_json
from indexer.search.kinds import RequestedKind, parse_kind
from indexer.search.memory import format_size, parse_memory
from training.data.datasets import Part
from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.devices import Precision
from training.errors import UserError
from training.naming import one_line

if TYPE_CHECKING:
    from indexer.updates.pipeline import Report
    from indexer.updates.verify import Verification

app = typer.Typer()

FeaturePrecision = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        show_default=False,
        help="Precision of the features. The default is float32. An index keeps its precision: it "
        "holds for images that are added later too.",
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
        Path,
        typer.Option(
            show_default=False, help="The model directory. Its network makes the features."
        ),
    ],
    out: Annotated[Path, typer.Option(show_default=False, help="The index directory.")],
    part: Annotated[
        Part,
        typer.Option(
            help="The images to index: all, only the training images, or only the held-out images."
        ),
    ] = "all",
    device: DeviceOption = "auto",
    kind: KindOption = None,
    memory: MemoryOption = None,
    precision: FeaturePrecision = None,
) -> None:
    """Index DATA. If the index exists, bring it up to date with DATA.

    After an interruption, run the same command again to continue.
    """
    requested, memory_bytes = _parse_search_options(kind, memory)
    from indexer.updates.build import build as build_index

    report = build_index(
        data,
        model,
        out,
        part=part,
        device=device,
        kind=requested,
        memory_bytes=memory_bytes,
        precision=precision,
    )
    _print_report(report, out)


@app.command()
def add(
    index: IndexDirectory,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...", show_default=False, help="Folders, image files, tar shards or CSVs."
        ),
    ],
    prefix: Annotated[
        str, typer.Option(help="Text to put before every path, for example 2024/.")
    ] = "",
    model: Annotated[
        Path | None,
        typer.Option(
            help="The model directory. It is needed to embed on a GPU. By default, the index's own "
            "copy of the model is used."
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Add images to INDEX.

    If INDEX already has an image with the same bytes, the new image is left out. If an item has the
    same path but other bytes, the new image replaces it.
    """
    from indexer.updates.add import add as add_images

    report = add_images(index, data, prefix=prefix, model_directory=model, device=device)
    _print_report(report, index)


@app.command()
def remove(
    index: IndexDirectory,
    id: Annotated[
        list[int] | None,
        typer.Option(help="The id of an item. --id, --path and --label may be repeated."),
    ] = None,
    path: Annotated[list[str] | None, typer.Option(help="The path of an item.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label. All items with this label are removed.")
    ] = None,
) -> None:
    """Remove items from INDEX by id, path or label.

    If an id, path or label is unknown, nothing is removed.
    """
    from indexer.updates.remove import remove as remove_items

    if not (id or path or label):
        raise UserError("remove needs at least one item; pass --id, --path or --label")
    num_removed = remove_items(index, ids=id or (), paths=path or (), labels=label or ())
    print(
        f"{num_removed:,} images removed; reclaim their space with: lookalike index compact {index}"
    )


@app.command()
def compact(
    index: IndexDirectory,
    force: Annotated[
        bool, typer.Option("--force", help="Run now, even if only a few items have been removed.")
    ] = False,
    kind: KindOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Reclaim the space of removed items. With --kind, also change how INDEX is searched.

    The space is reclaimed if at least 20 % of the rows are removed items. Use --force to reclaim it
    in any case.
    """
    requested, memory_bytes = _parse_search_options(kind, memory)
    from indexer.updates.compact import WORTHWHILE_SHARE
    from indexer.updates.compact import compact as compact_index

    done = compact_index(
        index, force=force, kind=requested, memory_bytes=memory_bytes, device=device
    )
    if done.num_freed_bytes:
        print(f"{done.num_freed_bytes:,} bytes freed, {done.num_items:,} images kept")
    elif done.num_removed:
        print(
            f"{done.num_removed:,} removed images and {done.num_items:,} kept images: removed "
            f"images make up under {WORTHWHILE_SHARE:.0%} of the rows; pass --force to compact now"
        )
    elif requested is None and memory_bytes is None:
        print("nothing to compact")
    if memory_bytes is not None:
        print(f"searches may use {format_size(memory_bytes)} of memory from now on")
    if requested is not None or memory_bytes is not None:
        recall = f"for its recall, run: lookalike index stats {index}"
        print(
            "searches are exact" if done.kind == "flat" else f"searches use {done.kind}; {recall}"
        )


@app.command()
def verify(
    index: IndexDirectory,
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Restore the damaged files if possible, and drop the rest."),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            help="With --mend: the model directory from which the index's copy of the model is "
            "restored."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare every byte of INDEX with its checksums.

    If INDEX is damaged, print what is lost and how to mend it, and exit with status 1.
    """
    from indexer.updates.mend import mend as mend_index
    from indexer.updates.verify import verify as verify_index

    if model and not mend:
        raise UserError(
            "--model works only with --mend, to restore the index's copy of the model; "
            "pass --mend too, or leave out --model"
        )
    num_kept = mend_index(index, model) if mend else None
    if num_kept is not None and not as_json:
        print(f"{num_kept:,} images kept")
    result = verify_index(index)
    if as_json:
        mended = {"num_kept": num_kept} if mend else {}
        print_json(asdict(result) | {"is_clean": result.is_clean} | mended)
    else:
        _print_damage(result)
    if not result.is_clean:
        raise typer.Exit(1)


def _print_damage(result: "Verification") -> None:
    for damage in result.damages:
        print(f"{damage.file} {damage.what}; {damage.remedy}")
    for item in result.lost:
        id = item.id or "of unknown id"
        path = one_line(item.path) if item.path else "of unknown path"
        print(f"lost: item {id}, {path} ({', '.join(item.parts)})")
    if result.is_clean:
        print(f"clean: {result.num_items:,} images, {result.num_bytes:,} bytes")


def _print_report(report: "Report", directory: Path) -> None:
    print(
        f"{directory} holds {report.num_items:,} images: {report.num_added:,} added, "
        f"{report.num_changed:,} changed, {report.num_removed:,} removed, "
        f"{report.num_unchanged:,} unchanged"
    )
    if report.skipped:
        print(describe_skipped(report.skipped, directory / SKIPPED_FILE))


def _parse_search_options(
    kind: str | None, memory: str | None
) -> tuple[RequestedKind | None, int | None]:
    """Parse --kind and --memory. An option that was not given stays None. Raises UserError."""
    requested = None if kind is None else parse_kind(kind)
    return requested, None if memory is None else parse_memory(memory)
