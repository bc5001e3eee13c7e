import csv
import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from indexer.reports import export as exporting
from indexer.reports.export import export
from indexer.storage.index import Index, Item
from indexer.storage.writer import IndexWriter
from tests.indexer.items import made_up_item
from training.errors import UserError

PATHS = [
    'a "quoted" one.png',
    "new\nline.png",
    "carriage\rreturn.png",
    "comma, semicolon; tab\t.png",
    "ünï/日本.png",
    " spaces .png",
    "NA",
]
LABELS = ["0", "with, comma", None, 'a "label"', "new\nline", None, "0"]
COLUMNS = ["id", "path", "label", "sha256", "width", "height", "added_at"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Index:
    """Items with difficult paths, some without a label; one more was removed, so that rows and items differ."""
    directory = tmp_path_factory.mktemp("difficult") / "index"
    features = np.random.default_rng(0).gamma(1.0, 2.0, (len(PATHS) + 1, 4096)).astype(np.float32)
    with IndexWriter.open(directory, tiny_model) as writer:
        for number, (path, label) in enumerate(
            zip(["gone", *PATHS], ["gone", *LABELS], strict=True)
        ):
            item = made_up_item(number, features[number])
            writer.add(type(item)(**{**vars(item), "path": path, "label": label}))
        writer.commit()
        writer.remove([int(Index.open(directory).ids[0])])
        writer.commit(is_complete=True)
    opened = Index.open(directory)
    return opened


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "BLOCK_ITEMS", 3)


def items_of(index: Index) -> list[Item]:
    found = index.items_of([int(id) for id in index.ids])
    return [found[int(id)] for id in index.ids]


@pytest.mark.usefixtures("small_blocks")
def test_parquet_holds_every_item_and_feature_a_block_a_row_group(
    index: Index, tmp_path: Path
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (file,) = export(index, tmp_path)
    table = pq.read_table(file)
    assert table.column_names == [*COLUMNS[:3], "sha256", "width", "height", "added_at", "feature"]
    types = dict(zip(table.column_names, table.schema.types, strict=True))
    assert (types["id"], types["label"]) == (pa.int64(), pa.string())
    assert types["feature"] == pa.list_(pa.float32(), 4096)
    assert pq.ParquetFile(file).metadata.num_row_groups == 3
    assert table.schema.metadata[b"model"].decode() == index.manifest.model_id
    for column in ("id", "path", "label", "sha256", "width", "height"):
        assert table[column].to_pylist() == [getattr(item, column) for item in items_of(index)]
    assert [moment.timestamp() for moment in table["added_at"].to_pylist()] == [
        datetime.fromisoformat(item.added_at).timestamp() for item in items_of(index)
    ]
    features = table["feature"].combine_chunks().flatten().to_numpy().reshape(-1, 4096)
    np.testing.assert_array_equal(features, index.features[index.rows])


def test_parquet_opens_in_pandas(index: Index, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(export(index, tmp_path)[0])
    assert frame["path"].tolist() == PATHS
    assert [None if pandas.isna(label) else label for label in frame["label"]] == LABELS
    assert str(frame["added_at"].dt.tz) == "UTC"
    np.testing.assert_array_equal(np.stack(frame["feature"]), index.features[index.rows])


@pytest.mark.usefixtures("small_blocks")
def test_line_n_of_the_csv_is_row_n_of_the_features(index: Index, tmp_path: Path) -> None:
    features_file, items_file = export(index, tmp_path, format="npy")
    features = np.load(features_file, mmap_mode="r")
    assert (features.dtype, features.shape) == (np.float32, (len(PATHS), 4096))
    np.testing.assert_array_equal(features, index.features[index.rows])
    with items_file.open(newline="", encoding="utf-8") as text:
        header, *lines = csv.reader(text)
    assert header == COLUMNS
    for line, item in zip(lines, items_of(index), strict=True):
        assert line == [
            str(getattr(item, column) if getattr(item, column) is not None else "")
            for column in COLUMNS
        ]


def test_the_csv_opens_in_pandas(index: Index, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(
        export(index, tmp_path, format="npy")[1],
        dtype=str,
        keep_default_na=False,
        na_values={"label": [""]},
    )
    assert frame["path"].tolist() == PATHS
    assert [None if pandas.isna(label) else label for label in frame["label"]] == LABELS
    assert frame["id"].astype(int).tolist() == index.ids.tolist()


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_an_earlier_export_is_replaced_and_an_empty_index_exports_no_rows(
    format: exporting.Format, index: Index, tiny_model: Path, tmp_path: Path
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    export(index, tmp_path / "out", format=format)
    with IndexWriter.open(tmp_path / "empty", tiny_model) as writer:
        writer.commit(is_complete=True)
    files = export(Index.open(tmp_path / "empty"), tmp_path / "out", format=format)
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    if format == "parquet":
        assert pq.read_table(files[0]).num_rows == 0
    else:
        assert np.load(files[0]).shape == (0, 4096)
        assert files[1].read_text().splitlines() == [",".join(COLUMNS)]


def test_what_fails_halfway_leaves_the_earlier_export_and_nothing_else(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*export(index, tmp_path), *export(index, tmp_path, format="npy")]
    earlier = {file: file.read_bytes() for file in files}
    monkeypatch.setattr(exporting, "BLOCK_ITEMS", 3)
    items_of = Index.items_of
    monkeypatch.setattr(
        Index, "items_of", lambda self, ids: {} if self.ids[-1] in ids else items_of(self, ids)
    )
    for format in ("parquet", "npy"):
        with pytest.raises(KeyError):
            export(index, tmp_path, format=format)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == earlier


def test_a_file_where_the_folder_should_be_is_refused(index: Index, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match=r"--out takes a folder, but .*out is a file"):
        export(index, tmp_path / "out")


@pytest.mark.slow  # writes some hundred megabytes
def test_memory_does_not_grow_with_the_collection(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    features = np.random.default_rng(0).gamma(1.0, 2.0, (1000, 4096)).astype(np.float32)
    with IndexWriter.open(tmp_path / "index", tiny_model) as writer:
        for number in range(6000):
            writer.add(made_up_item(number, features[number % 1000]))
        writer.commit(is_complete=True)
    index = Index.open(tmp_path / "index")
    for format in ("parquet", "npy"):
        tracemalloc.start()
        export(index, tmp_path / "out", format=format)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60e6 < index.features.nbytes
