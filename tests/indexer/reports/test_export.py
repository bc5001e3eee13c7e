"""`lookalike index export`: files that pandas and NumPy open, and what an error leaves behind."""

import csv
import resource
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from indexer.reports import export as exporting
from indexer.reports.export import export
from indexer.storage.index import Index, Item
from indexer.storage.writer import IndexWriter
from tests.conftest import Run
from tests.indexer.conftest import Succeed
from tests.indexer.items import made_up_item
from training.data.datasets import open_dataset
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
    """Items with difficult paths and labels. One was removed, so rows and items differ."""
    directory = tmp_path_factory.mktemp("difficult") / "index"
    features = np.random.default_rng(0).gamma(1.0, 2.0, (len(PATHS) + 1, 4096)).astype(np.float32)
    with IndexWriter.open(directory, tiny_model) as writer:
        texts = zip(["gone", *PATHS], ["gone", *LABELS], strict=True)
        for number, (path, label) in enumerate(texts):
            item = made_up_item(number, features[number])
            writer.add(replace(item, path=path, label=label))
        writer.commit()
        writer.remove([int(Index.open(directory).ids[0])])
        writer.commit(is_complete=True)
    return Index.open(directory)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "EXPORT_BLOCK_ITEMS", 3)


def items_of(index: Index) -> list[Item]:
    ids = index.ids.tolist()
    items = index.items_of(ids)
    return [items[id] for id in ids]


@pytest.mark.usefixtures("small_blocks")
def test_parquet_has_every_item_and_feature_with_one_row_group_per_block(
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


def test_an_error_halfway_leaves_the_earlier_export_and_nothing_else(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*export(index, tmp_path), *export(index, tmp_path, format="npy")]
    earlier = {file: file.read_bytes() for file in files}
    monkeypatch.setattr(exporting, "EXPORT_BLOCK_ITEMS", 3)
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
    with pytest.raises(UserError, match=r"--out must be a folder, but .*out is a file"):
        export(index, tmp_path / "out")


def test_the_command_prints_the_files_that_it_writes(
    tiny_index: Path, tmp_path: Path, succeed: Succeed
) -> None:
    folder = tmp_path / "deep" / "out"
    out, _ = succeed("index", "export", tiny_index, "--out", folder)
    assert out == f"Wrote 18 items to {folder}/items.parquet\n"
    out, _ = succeed("index", "export", tiny_index, "--out", folder, "--format", "npy")
    assert out == f"Wrote 18 items to {folder}/features.npy and {folder}/items.csv\n"
    assert sorted(file.name for file in folder.iterdir()) == [
        "features.npy",
        "items.csv",
        "items.parquet",
    ]


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_full_disk_leaves_the_earlier_export_as_it_was(
    format: str, tiny_index: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the limit of the disk."""
    names = ["items.parquet"] if format == "parquet" else ["features.npy", "items.csv"]
    for name in names:
        (tmp_path / name).write_text("earlier")
    lookalike_command = Path(sys.executable).with_name("lookalike")
    options = ("--out", tmp_path, "--format", format)
    command: list[str | Path] = [lookalike_command, "index", "export", tiny_index, *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path / names[0]}: File too large; free some disk space" in done.stderr
    contents = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert contents == dict.fromkeys(names, "earlier")


def test_parquet_without_pyarrow_ends_with_an_error(
    run: Run, tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run("index", "export", tiny_index, "--out", tmp_path).status == 1


@pytest.mark.slow  # writes a few hundred megabytes
def test_memory_does_not_grow_with_the_collection(tmp_path: Path, tiny_model: Path) -> None:
    pa = pytest.importorskip("pyarrow")
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
    # pyarrow's memory is not Python's, so tracemalloc does not see it.
    assert pa.default_memory_pool().max_memory() < 60e6


FORMULAS = ["=HYPERLINK(1).png", "@SUM(1+1)*cmd|x.png", "-1.png", "'+1.png", "\t=x.png"]


@pytest.fixture(scope="module")
def formulas(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Index:
    """Items with paths and labels that a spreadsheet would compute."""
    directory = tmp_path_factory.mktemp("formulas") / "index"
    feature = np.full(4096, -1, np.float32)
    with IndexWriter.open(directory, tiny_model) as writer:
        for number, text in enumerate(FORMULAS):
            writer.add(replace(made_up_item(number, feature), path=text, label=f"={number}"))
        writer.commit(is_complete=True)
    return Index.open(directory)


@pytest.mark.parametrize("format", ["npy", "parquet"])
@pytest.mark.parametrize("raw", [False, True])
def test_formulas_are_text_unless_the_table_is_raw(
    formulas: Index, tmp_path: Path, format: str, raw: bool
) -> None:
    if format == "parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        (file,) = export(formulas, tmp_path, raw=raw)
        rows = pq.read_table(file).to_pylist()
        assert all(set(row["feature"]) == {-1.0} for row in rows)
    else:
        features, file = export(formulas, tmp_path, format="npy", raw=raw)
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert (np.load(features) == -1).all()
    mark = "" if raw else "'"
    assert [row["path"] for row in rows] == [mark + text for text in FORMULAS]
    assert [row["label"] for row in rows] == [f"{mark}={number}" for number in range(5)]


def test_an_exported_table_is_read_back_as_data(formulas: Index, tmp_path: Path) -> None:
    _, table = export(formulas, tmp_path, format="npy")
    examples = open_dataset(table).part("all")
    assert [example.path for example in examples] == FORMULAS
    assert [example.label for example in examples] == [f"={number}" for number in range(5)]
