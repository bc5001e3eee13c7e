"""`lookalike index quality` and `index export` as a person types them."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lookalike
from indexer.reports.quality import measure
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, coloured
from tests.indexer.conftest import Succeed
from tests.indexer.items import made_up_item
from training.errors import UserError


def make_index(
    directory: Path, model: Path, features: np.ndarray, labels: list[str | None]
) -> Path:
    with IndexWriter.open(directory, model) as writer:
        for number, (feature, label) in enumerate(zip(features, labels, strict=True)):
            item = made_up_item(number, feature)
            writer.add(type(item)(**{**vars(item), "label": label}))
        writer.commit(is_complete=True)
    return directory


@pytest.fixture(scope="module")
def other_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries: two images of each colour that are not in the index, one of a label that it lacks, and one that is no image."""
    root = tmp_path_factory.mktemp("queries")
    for label in COLOURS:
        (root / label).mkdir()
        for number in range(2):
            coloured(label, 900 + number).save(root / label / f"{number}.png")
    (root / "purple").mkdir()
    coloured("red", 990).save(root / "purple" / "0.png")
    (root / "red" / "notes.png").write_text("not an image")
    return root


def test_flat_search_of_the_indexs_own_items_misses_nothing_and_colours_find_their_own(
    tiny_index: Path, succeed: Succeed
) -> None:
    out, _ = succeed("index", "quality", tiny_index, "-k", "5", "--device", "cpu")
    assert (
        "holds 18 items, searched as flat; 18 of its own items ask, each left out of its own answers and ranking"
        in out
    )
    table = [line.split() for line in out.splitlines()[1:]]
    assert table[0] == ["distance", "recall@5", "precision@5", "mAP"]
    assert table[1] == ["euclidean", "1.0000", "1.0000", "1.0000"]
    assert table[2][0] == "cosine"
    assert table[2][2:] == ["1.0000", "1.0000"]
    assert len(table) == 3


def test_held_out_queries_are_embedded_judged_and_counted(
    tiny_index: Path, other_colours: Path, succeed: Succeed
) -> None:
    out, _ = succeed(
        "index",
        "quality",
        tiny_index,
        "--queries",
        other_colours,
        "-k",
        "6",
        "--device",
        "cpu",
        "--json",
    )
    report = json.loads(out)
    index = Index.open(tiny_index)
    assert (report["model"], report["commit"], report["kind"]) == (
        index.manifest.model_id,
        index.manifest.commit,
        "flat",
    )
    assert (report["queries"], report["num_queries"], report["k"], report["num_items"]) == (
        str(other_colours),
        7,
        6,
        18,
    )
    assert (report["num_skipped"], report["num_unlabelled"], report["num_unanswerable"]) == (
        1,
        0,
        1,
    )
    assert [result["metric"] for result in report["results"]] == ["euclidean", "cosine"]
    euclidean = report["results"][0]
    assert (
        euclidean["recall_at_k"],
        euclidean["precision_at_k"],
        euclidean["mean_average_precision"],
    ) == (1, 1, 1)
    text, _ = succeed("index", "quality", tiny_index, "--queries", other_colours, "--device", "cpu")
    assert "queries that could not be read, skipped: 1" in text
    assert "queries whose label no other item has, counted for recall only: 1" in text


def test_queries_without_a_label_count_for_recall_only(tiny_index: Path, tmp_path: Path) -> None:
    coloured("red", 900).save(tmp_path / "plain.png")
    report = measure(tiny_index, data=str(tmp_path))
    assert (report.num_queries, report.num_unlabelled, report.num_unanswerable) == (1, 1, 0)
    assert report.results[0].recall_at_k == 1
    assert (report.results[0].precision_at_k, report.results[0].mean_average_precision) == (
        None,
        None,
    )


def test_own_items_are_judged_as_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    """At 0, 1, 3 and 7 on a line, of labels a, b, a and none: a's two see b first, b has no other, the last has no label."""
    features = np.zeros((4, 4096), np.float32)
    features[:, 0] = [0, 1, 3, 7]
    report = measure(
        make_index(tmp_path / "index", tiny_model, features, ["a", "b", "a", None]), k=1
    )
    assert (report.num_queries, report.num_unlabelled, report.num_unanswerable) == (4, 1, 1)
    euclidean = report.results[0]
    assert (euclidean.recall_at_k, euclidean.precision_at_k, euclidean.mean_average_precision) == (
        1,
        0,
        0.5,
    )


def test_duplicates_are_no_misses_and_a_lone_item_has_nothing_to_find(
    tiny_model: Path, tmp_path: Path
) -> None:
    features = np.random.default_rng(0).gamma(1, 2, (1, 4096)).astype(np.float32)
    duplicates = measure(
        make_index(tmp_path / "same", tiny_model, features.repeat(40, axis=0), ["a"] * 40), k=3
    )
    assert [result.precision_at_k for result in duplicates.results] == [1, 1]
    assert duplicates.results[0].recall_at_k == 1
    lone = measure(make_index(tmp_path / "lone", tiny_model, features, ["a"]))
    assert [
        (result.recall_at_k, result.precision_at_k, result.mean_average_precision)
        for result in lone.results
    ] == [(None,) * 3] * 2


def test_an_empty_index_and_unreadable_queries_are_refused(
    tiny_model: Path, tiny_index: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has no items to find"):
        measure(make_index(tmp_path / "empty", tiny_model, np.empty((0, 4096), np.float32), []))
    (tmp_path / "queries").mkdir()
    with pytest.raises(UserError, match="has no readable image; pass --queries"):
        measure(tiny_index, data=str(tmp_path / "queries"))
    (tmp_path / "queries" / "cut.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"has no readable image: cut\.png: this is not an image"):
        measure(tiny_index, data=str(tmp_path / "queries"))


def test_export_writes_what_it_says(tiny_index: Path, tmp_path: Path, succeed: Succeed) -> None:
    out, _ = succeed("index", "export", tiny_index, "--out", tmp_path / "deep" / "out")
    assert out == f"Wrote 18 items to {tmp_path}/deep/out/items.parquet\n"
    out, _ = succeed(
        "index", "export", tiny_index, "--out", tmp_path / "deep" / "out", "--format", "npy"
    )
    assert (
        out
        == f"Wrote 18 items to {tmp_path}/deep/out/features.npy and {tmp_path}/deep/out/items.csv\n"
    )
    assert sorted(file.name for file in (tmp_path / "deep" / "out").iterdir()) == [
        "features.npy",
        "items.csv",
        "items.parquet",
    ]


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_full_disk_leaves_the_earlier_export_as_it_was(
    format: str, tiny_index: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk's."""
    names = ["items.parquet"] if format == "parquet" else ["features.npy", "items.csv"]
    for name in names:
        (tmp_path / name).write_text("earlier")
    command: list[str | Path] = [
        Path(sys.executable).with_name("lookalike"),
        "index",
        "export",
        tiny_index,
        "--out",
        tmp_path,
        "--format",
        format,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path / names[0]}: File too large; make room" in done.stderr
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        names, "earlier"
    )


def test_parquet_without_pyarrow_is_refused_with_what_brings_it(
    tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(
        "sys.argv", ["lookalike", "index", "export", str(tiny_index), "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as left:
        lookalike.main()
    assert left.value.code == 1
