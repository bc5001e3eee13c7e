"""`lookalike index export`: items and features as files for pandas and NumPy.

items.parquet   id, path, label, sha256, width, height, added_at, feature (4096 float32 each)
features.npy    (num_items, 4096) float32
items.csv       id, path, label, sha256, width, height, added_at; line n is row n of features.npy

A text that a spreadsheet would take for a formula begins with an apostrophe, also in the Parquet
file, because tables are often converted.

The items are written in blocks of 1000, so the memory use does not grow with the index. Writing the
Parquet file needs pyarrow, which is in the `full` extra.
"""

import csv
from collections.abc import Iterator
from dataclasses import replace
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
from training.tables import to_cell

Format = Literal["parquet", "npy"]

PARQUET_FILE, FEATURES_FILE, ITEMS_FILE = "items.parquet", "features.npy", "items.csv"
EXPORT_BLOCK_ITEMS = 1000
"""Number of items in a block. Only one block is in memory at a time, with 16 MB of features. Each
block is a row group of the Parquet file."""
COLUMNS = ("id", "path", "label", "sha256", "width", "height", "added_at")


def export(index: Index, out: Path, *, format: Format = "parquet", raw: bool = False) -> list[Path]:
    """Write the items and features into the folder `out`. Return the files.

    If `raw` is true, paths and labels are written as they are, even if they look like formulas.

    The items are in the order of their rows. An earlier file is replaced only when the new file is
    complete. So after an error, the earlier file is still there. Raises UserError if `out` is a
    file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder, but {out} is a file; pass another --out")
    out.mkdir(parents=True, exist_ok=True)
    if format == "parquet":
        _write_parquet(index, out / PARQUET_FILE, raw=raw)
        return [out / PARQUET_FILE]
    with replacing(out / FEATURES_FILE) as features:
        _write_features(index, features)
        # The two blocks are nested, so that neither file is replaced before both are written.
        with replacing(out / ITEMS_FILE) as items:
            _write_items(index, items, raw=raw)
    return [out / FEATURES_FILE, out / ITEMS_FILE]


def _write_parquet(index: Index, file: Path, *, raw: bool) -> None:
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
    # The numbers of features hardly repeat, so a dictionary does not help. But a ReLU gives many
    # zeros, and zeros compress well.
    options = {"compression": "zstd", "use_dictionary": ["label"]}
    with (
        replacing(file) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, schema, **options) as writer,
    ):
        for rows, ids in _blocks(index):
            items = _items(index, ids, raw=raw)
            columns = [[getattr(item, name) for item in items] for name in COLUMNS[:-1]]
            columns.append([datetime.fromisoformat(item.added_at) for item in items])
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, fields, strict=False)
            ]
            numbers = pa.array(_features(index, rows).ravel())
            arrays.append(pa.FixedSizeListArray.from_arrays(numbers, NUM_FEATURES))
            batch = pa.record_batch(arrays, schema=schema)
            writer.write_batch(batch, row_group_size=EXPORT_BLOCK_ITEMS)


def _write_features(index: Index, file: Path) -> None:
    # numpy.lib.format.open_memmap is not used: if the disk is full, writing to a memory map kills
    # the process, but writing to a file raises OSError.
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(index.rows), NUM_FEATURES)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for rows, _ in _blocks(index):
            stream.write(_features(index, rows).data)


def _write_items(index: Index, file: Path, *, raw: bool) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        # Lines end with CR LF, as in RFC 4180. Therefore a path that contains CR or LF is quoted.
        lines = csv.writer(stream)
        lines.writerow(COLUMNS)
        for _, ids in _blocks(index):
            lines.writerows(map(_fields, _items(index, ids, raw=raw)))


def _fields(item: Item) -> tuple[object, ...]:
    """An item's values in the order of COLUMNS."""
    return tuple(getattr(item, name) for name in COLUMNS)


def _items(index: Index, ids: Rows, *, raw: bool) -> list[Item]:
    """The items with these ids (n,), in the order of the ids, with their texts as cells."""
    items = index.items_of(ids.tolist())
    listed = [items[id] for id in ids.tolist()]
    return listed if raw else [with_cells(item) for item in listed]


def with_cells(item: Item) -> Item:
    """The item with a path and a label that no spreadsheet takes for formulas."""
    label = None if item.label is None else to_cell(item.label)
    return replace(item, path=to_cell(item.path), label=label)


def _features(index: Index, rows: Rows) -> Floats:
    """The features of these rows, (n, 4096) little-endian float32."""
    return np.asarray(index.features[rows], "<f4", order="C")


def _blocks(index: Index) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows and the ids of the items, in blocks."""
    with Bar("Exporting", len(index.ids), "items") as bar:
        for start in range(0, len(index.ids), EXPORT_BLOCK_ITEMS):
            block = slice(start, start + EXPORT_BLOCK_ITEMS)
            yield index.rows[block], index.ids[block]
            bar.advance(len(index.ids[block]))
