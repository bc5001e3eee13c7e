"""Reading an index: one whole commit, items by every key, and errors that name the file."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.index import Index, Item
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import verify
from tests.conftest import Run
from tests.indexer.damage import truncate
from tests.indexer.golden import (
    GOLDEN_ITEMS,
    MODEL_ID,
    NUM_FEATURES,
    REMOVED_ROW,
    write_golden_index,
)
from tests.indexer.items import made_up_features, made_up_item, make_index


def test_a_reader_keeps_its_commit_while_a_writer_makes_the_next(index: Path) -> None:
    before, feature = Index.open(index), np.ones(4096, np.float32)
    first = before.items()[0].id
    with IndexWriter.open(index) as writer:
        writer.add(made_up_item(100, feature))
        writer.remove([first])
        assert Index.open(index).count() == 20
        writer.commit(is_complete=True)
    after = Index.open(index)
    assert before.count() == len(before.ids) == 20
    assert before.item(first) is not None
    assert after.count() == 20
    assert after.item(first) is None
    assert after.thumbnail(first) is None
    np.testing.assert_array_equal(after.features[after.rows[-1]], feature)


def test_items_come_in_pages_and_by_label(tiny_index: Path) -> None:
    index = Index.open(tiny_index)
    everything = index.items(limit=100)
    assert index.items(limit=5, offset=5) == everything[5:10]
    assert index.items(label="red", limit=100) == [
        item for item in everything if item.label == "red"
    ]
    assert index.count("red") == 6
    assert index.count("purple") == 0
    assert (
        index.items(label=["red", "purple", "blue"], limit=4, offset=4)
        == [item for item in everything if item.label in ("red", "blue")][4:8]
    )
    assert index.count(["red", "purple", "blue", "red"]) == 12
    assert index.count(["purple"]) == index.count([]) == 0
    assert index.item(10**6) is None


def test_ids_are_never_used_again(index: Path) -> None:
    last = int(max(Index.open(index).ids))
    with IndexWriter.open(index) as writer:
        writer.remove([last])
        writer.commit()
        writer.add(made_up_item(100, np.ones(4096, np.float32)))
        writer.commit(is_complete=True)
    assert max(Index.open(index).ids) > last


def test_what_is_not_an_index_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            Index.open(directory)


@pytest.mark.parametrize("version", [1, 2, 4, 99])
def test_another_format_is_refused(tmp_path: Path, version: int) -> None:
    write_golden_index(tmp_path / "golden", format_version=version)
    with pytest.raises(
        IndexDirectoryError,
        match=rf"has format {version}, but this program reads format 3; "
        r".*lookalike index build DATA",
    ):
        Index.open(tmp_path / "golden")


def test_an_index_that_was_written_from_the_documented_format_opens(tmp_path: Path) -> None:
    """An index of an earlier release stays readable, or FORMAT_VERSION has to change."""
    write_golden_index(tmp_path / "golden")
    index = Index.open(tmp_path / "golden")
    rows = [row for row in range(len(GOLDEN_ITEMS)) if row != REMOVED_ROW]
    assert index.rows.tolist() == rows
    assert index.manifest.model_id == MODEL_ID
    assert index.items() == [
        Item(
            id=item.id,
            path=item.path,
            label=item.label,
            width=item.width,
            height=item.height,
            sha256=hashlib.sha256(item.content).hexdigest(),
            added_at="2023-11-14T22:13:20+00:00",
        )
        for item in (GOLDEN_ITEMS[row] for row in rows)
    ]
    assert index.features.shape == (len(GOLDEN_ITEMS), NUM_FEATURES)
    for row in rows:
        item = GOLDEN_ITEMS[row]
        assert index.features[row].tolist() == list(item.feature)
        assert index.thumbnail(item.id) == item.thumbnail
        assert index.rows_of_path(item.path).tolist() == [row]
        content_sha256 = hashlib.sha256(item.content).hexdigest()
        assert index.rows_of_content(content_sha256).tolist() == [row]
    assert index.labels() == {"cat": 1}
    assert index.rows_of_path(GOLDEN_ITEMS[REMOVED_ROW].path).tolist() == []
    assert verify(tmp_path / "golden").is_clean


def test_an_index_that_was_written_from_the_documented_format_can_be_changed(
    tmp_path: Path,
) -> None:
    write_golden_index(tmp_path / "golden")
    with IndexWriter.open(tmp_path / "golden") as writer:
        assert writer.add(made_up_item(1, made_up_features(1)[0])) == 12
        writer.remove([4])
        writer.commit()
        writer.rewrite(Index.open(tmp_path / "golden").rows[:0])
    assert read_manifest(tmp_path / "golden").generation == 3
    assert verify(tmp_path / "golden").is_clean


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("manifest.json", 40, "manifest.json is damaged"),
        (
            "features-0.f32",
            1000,
            r"should hold 327,680 bytes but has 1,000; restore it from a copy, or .*; "
            r"to see what is lost, run: lookalike index verify",
        ),
        ("records-0.bin", 100, r"should hold .* bytes but has 100"),
    ],
)
def test_a_truncated_file_is_named(index: Path, name: str, length: int, message: str) -> None:
    truncate(index / name, length)
    with pytest.raises(IndexDirectoryError, match=message):
        Index.open(index)


def test_what_is_left_of_a_truncated_index_can_be_salvaged(index: Path) -> None:
    truncate(index / "features-0.f32", 5 * 4 * 4096 + 100)
    truncate(index / "texts-0.utf8", 6)
    salvaged = Index.salvage(index)
    assert (len(salvaged.features), len(salvaged.records)) == (5, 20)
    assert salvaged.item_bytes(7).feature == salvaged.item_bytes(7).text == b""
    assert len(salvaged.item_bytes(4).feature) == 4 * 4096


def test_a_read_only_index_can_be_read(index: Path) -> None:
    for file in index.rglob("*"):
        file.chmod(0o555 if file.is_dir() else 0o444)
    assert Index.open(index).count() == 20


def test_a_missing_file_is_a_clear_error(index: Path) -> None:
    (index / "texts-0.utf8").unlink()
    with pytest.raises(
        IndexDirectoryError,
        match=r"texts-0\.utf8 is missing; restore it from a copy, or .*; "
        r"to see what is lost, run: lookalike index verify",
    ):
        Index.open(index)


def test_a_single_changed_byte_of_the_manifest_is_noticed(index: Path) -> None:
    content = (index / "manifest.json").read_bytes()
    for position in range(0, len(content), 7):
        changed = bytes([content[position] ^ 1])
        (index / "manifest.json").write_bytes(
            content[:position] + changed + content[position + 1 :]
        )
        with pytest.raises(IndexDirectoryError):
            Index.open(index)


def test_a_reader_that_comes_during_a_compaction_sees_the_next_generation(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = read_manifest(index)
    with IndexWriter.open(index) as writer:
        writer.rewrite(writer.index.rows)
    manifests = iter([earlier, read_manifest(index)])
    monkeypatch.setattr("indexer.storage.index.read_manifest", lambda _: next(manifests))
    assert Index.open(index).manifest.generation == 1


def test_items_are_found_by_path_and_by_content(tiny_index: Path) -> None:
    index = Index.open(tiny_index)
    item = index.items()[7]
    rows = index.rows_of_path(item.path)
    assert index.ids[np.searchsorted(index.rows, rows)].tolist() == [item.id]
    assert index.rows_of_content(item.sha256).tolist() == rows.tolist()
    assert not len(index.rows_of_path("nowhere.png"))
    assert not len(index.rows_of_content("0" * 64))


def test_rows_of_ids_keep_their_order_and_unknown_ids_are_left_out(index: Path) -> None:
    opened = Index.open(index)
    assert opened.rows_of_ids([20, 3, 0, -1, 21, 2**70, 1]).tolist() == [19, 2, 0]
    assert opened.rows_of_ids([]).tolist() == []


def test_removing_an_item_twice_counts_once(index: Path) -> None:
    first = Index.open(index).items()[0].id
    with IndexWriter.open(index) as writer:
        writer.remove([first, first])
        writer.commit(is_complete=True)
    assert Index.open(index).count() == 19


def test_labels_come_in_natural_order(stand_in: Path, tmp_path: Path) -> None:
    labels = ["label 10", "label 2", None, "label 10", "Label 3", "a"]
    features = made_up_features(len(labels))
    index = Index.open(make_index(tmp_path / "index", stand_in, features, labels))
    assert list(index.labels().items()) == [
        ("Label 3", 1),
        ("a", 1),
        ("label 2", 1),
        ("label 10", 2),
    ]
    assert list(index.stats().labels) == ["Label 3", "a", "label 2", "label 10"]
    assert [index.rows_of_label(label).tolist() for label in ("label 10", "label 1")] == [
        [0, 3],
        [],
    ]


def test_stats_are_facts_about_the_index(tiny_index: Path) -> None:
    stats = Index.open(tiny_index).stats()
    assert (stats.num_items, stats.kind) == (18, "flat")
    assert stats.labels == {"blue": 6, "green": 6, "red": 6}
    assert stats.num_bytes > 18 * 4096 * 4


def test_the_fields_of_the_stats_are_those_of_the_command(index: Path, run: Run) -> None:
    printed = json.loads(run("index", "stats", index, "--json").out)
    assert list(printed) == [
        "index",
        "model",
        "precision",
        "num_items",
        "num_removed",
        "commit",
        "is_complete",
        "kind",
        "search",
        "num_bytes",
        "created_at",
        "updated_at",
        "labels",
        "probe",
        "codes",
        "distance_comparison",
    ]
    assert printed == asdict(Index.open(index).stats())


def test_stats_say_what_the_codes_are(coded: Path, run: Run) -> None:
    printed = json.loads(run("index", "stats", coded, "--json").out)
    assert printed["codes"] == {"num_bits": 32, "num_fitted": 20, "commit": 1, "num_bytes": 80}
    assert (
        "codes  32 bits, learned from 20 items of commit 1, 80 bytes\n"
        in run("index", "stats", coded).out
    )
