"""`lookalike index build`: make an index of DATA, or update an existing index to match DATA."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.array_types import Rows
from indexer.embedder import Embedder, resolve_precision
from indexer.search.kinds import RequestedKind
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, Manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.pipeline import Report, index_images
from indexer.updates.prepare import find_repeated_path
from training.data.datasets import Part, open_dataset
from training.data.examples import DataError, Example
from training.data.skipped import SKIPPED_FILE, Skipped, write_skipped
from training.devices import Device, Precision
from training.network.model import INT8_FILE, read_card


def build(
    data: str,
    model_directory: Path,
    out: Path,
    *,
    part: Part = "all",
    device: Device = "auto",
    kind: RequestedKind | None = None,
    memory_bytes: int | None = None,
    precision: Precision | None = None,
) -> Report:
    """Make an index of DATA in the directory `out`, or update the index there to match DATA.

    Adds new images, embeds changed images again, and removes the items of images that no longer
    exist. Unreadable files are skipped and listed in skipped.csv. If the file of an item becomes
    unreadable, the item stays. `precision` is that of the features. None means that of the index,
    and float32 for a new one. If the model got a network in int8 after the index was made, it is
    copied into the index. Raises UserError.
    """
    examples = _examples(data, part)
    card = read_card(model_directory)
    # A model without a network in int8 must not leave an empty index behind.
    created_in = resolve_precision(model_directory, card, precision or "float32")
    with IndexWriter.open(out, model_directory, card=card, precision=created_in) as writer:
        _check_precision(writer.manifest, out, precision)
        num_earlier, gone = len(writer.index.ids), _ids_without_example(writer.index, examples)
        if num_earlier and len(gone) == num_earlier:
            raise IndexDirectoryError(
                f"none of the {num_earlier:,} images in {out} are in {data}, "
                f"so {data} must be another collection; pass another --out, "
                f"or, to add its images, run: lookalike index add {out} {data}"
            )
        embedder = Embedder(
            model_directory,
            device=device,
            num_threads=1,
            card=card,
            precision=writer.manifest.feature_precision,
        )
        if card.int8 and INT8_FILE not in writer.manifest.model_files:
            writer.restore_model(model_directory)
        report = index_images(examples, embedder, writer, is_build=True)
        write_skipped(report.skipped, out / SKIPPED_FILE)
        if not num_earlier and not report.num_added:
            raise _unreadable(data, report.skipped[0], out)
        writer.remove(gone.tolist())
        update_search(writer, kind=kind, memory_bytes=memory_bytes, device=device)
        writer.commit(is_complete=True)
        report.num_removed, report.num_items = len(gone), writer.manifest.num_items
    return report


def _examples(data: str, part: Part) -> Sequence[Example]:
    examples = open_dataset(data).part(part)
    if not examples:
        raise DataError(
            f"{data} has no images; "
            "pass a folder of images, tar shards, a CSV (path,label), or `digits`"
        )
    if path := find_repeated_path(examples):
        raise DataError(
            f"two images of {data} have the path {path} when it is written as UTF-8; "
            "rename one of them"
        )
    return examples


def _unreadable(data: str, first: Skipped, out: Path) -> DataError:
    return DataError(
        f"{data} has no readable image: {first.path}: {first.reason}; "
        f"all are listed in {out / SKIPPED_FILE}"
    )


def _check_precision(manifest: Manifest, out: Path, precision: Precision | None) -> None:
    """Raise IndexDirectoryError if the index has features in another precision."""
    if precision not in (None, manifest.feature_precision):
        raise IndexDirectoryError(
            f"the features in {out} are {manifest.feature_precision}, and --precision {precision} "
            "would mix them with others; leave out --precision, or pass another --out"
        )


def _ids_without_example(index: Index, examples: Sequence[Example]) -> Rows:
    """The ids of the items whose path is not the path of an example, (n,)."""
    rows = [row for example in examples for row in index.rows_of_path(example.path)]
    return index.ids[~np.isin(index.rows, rows)]
