"""An index's items and features as files that pandas and NumPy open: one Parquet file, or .npy beside .csv.

items.parquet   id, path, label, sha256, width, height, added_at, feature (4096 float32 each)
features.npy    (num_items, 4096) float32
items.csv       id,path,label,sha256,width,height,added_at: line n is row n of features.npy

Both are written a thousand items at a time, so that memory does not grow with the collection.
"""

import csv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.array_types import Floats, Rows
from indexer.storage.index import Index, Item
from training.errors import UserError
from training.files import replacing
from training.network.model import NUM_FEATURES
from training.progress import Bar

Format = Literal["parquet", "npy"]

PARQUET_FILE, FEATURES_FILE, ITEMS_FILE = "items.parquet", "features.npy", "items.csv"
BLOCK_ITEMS = 1000
"""Items held at a time, 16 MB of features; a row group of the Parquet file."""
COLUMNS = ("id", "path", "label", "sha256", "width", "height", "added_at")


def export(index: Index, out: Path, *, format: Format = "parquet") -> list[Path]:
    """Writes the index into the folder `out`, the items in the order of their rows; returns the files.

    A file takes the place of an earlier one when it is whole; what fails before leaves the earlier one as it was.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out takes a folder, but {out} is a file; pass another")
    out.mkdir(parents=True, exist_ok=True)
    if format == "parquet":
        _write_parquet(index, out / PARQUET_FILE)
        return [out / PARQUET_FILE]
    with replacing(out / FEATURES_FILE) as features:
        _write_features(index, features)
        with replacing(
            out / ITEMS_FILE
        ) as items:  # so that neither takes its place before both are written
            _write_items(index, items)
    return [out / FEATURES_FILE, out / ITEMS_FILE]


def _write_parquet(index: Index, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("added_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("feature", pa.list_(pa.float32(), NUM_FEATURES), nullable=False),
    ]
    made_by = {"model": index.manifest.model_id, "commit": str(index.manifest.commit)}
    schema = pa.schema(fields, metadata=made_by)
    # Features hardly repeat, but those of a ReLU have many zeros: compression gains where a dictionary would not.
    options = {"compression": "zstd", "use_dictionary": ["label"]}
    with (
        replacing(file) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, schema, **options) as writer,
    ):
        for rows, ids in _blocks(index):
            items = _items(index, ids)
            columns = [[getattr(item, name) for item in items] for name in COLUMNS[:-1]]
            columns.append([datetime.fromisoformat(item.added_at) for item in items])
            arrays = [
                pa.array(values, field.type) for values, field in zip(columns, fields, strict=False)
            ]
            arrays.append(
                pa.FixedSizeListArray.from_arrays(
                    pa.array(_features(index, rows).ravel()), NUM_FEATURES
                )
            )
            writer.write_batch(pa.record_batch(arrays, schema=schema), row_group_size=BLOCK_ITEMS)


def _write_features(index: Index, file: Path) -> None:
    # Not numpy.lib.format.open_memmap: a full disk kills a process that writes to a map, where a write fails with an OSError.
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(index.rows), NUM_FEATURES)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for rows, _ in _blocks(index):
            stream.write(_features(index, rows).data)


def _write_items(index: Index, file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(
            stream
        )  # which ends them with CR LF, as RFC 4180 has it, and so quotes a path with either
        lines.writerow(COLUMNS)
        for _, ids in _blocks(index):
            lines.writerows(map(_fields, _items(index, ids)))


def _fields(item: Item) -> tuple[object, ...]:
    """An item's values in the order of COLUMNS."""
    return tuple(getattr(item, name) for name in COLUMNS)


def _items(index: Index, ids: Rows) -> list[Item]:
    """The items of these ids, in their order."""
    numbers = [int(id) for id in ids]
    found = index.items_of(numbers)
    return [found[number] for number in numbers]


def _features(index: Index, rows: Rows) -> Floats:
    """(n, 4096), little-endian."""
    return np.asarray(index.features[rows], "<f4", order="C")


def _blocks(index: Index) -> Iterator[tuple[Rows, Rows]]:
    """The rows and ids of the items, BLOCK_ITEMS at a time."""
    with Bar("Exporting", len(index.ids), "items") as bar:
        for start in range(0, len(index.ids), BLOCK_ITEMS):
            part = slice(start, start + BLOCK_ITEMS)
            yield index.rows[part], index.ids[part]
            bar.advance(len(index.ids[part]))
