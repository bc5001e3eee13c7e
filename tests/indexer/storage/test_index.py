import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest, write_manifest
from indexer.storage.writer import IndexWriter
from tests.indexer.items import made_up_item


@pytest.fixture
def own_index(tiny_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_index, tmp_path / "index"))


def test_a_reader_keeps_its_commit_while_a_writer_makes_the_next(
    own_index: Path, tiny_model: Path
) -> None:
    before = Index.open(own_index)
    feature = np.ones(4096, np.float32)
    with IndexWriter.open(own_index, tiny_model) as writer:
        writer.add(made_up_item(1, feature))
        writer.remove([before.items()[0].id])
        assert Index.open(own_index).count() == 18
        writer.commit(is_complete=True)
    after = Index.open(own_index)
    assert before.count() == len(before.ids) == 18
    assert before.item(before.items()[0].id) is not None
    assert after.count() == 18
    assert after.item(before.items()[0].id) is None
    assert after.thumbnail(before.items()[0].id) is None
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
    assert index.item(10**6) is None


def test_ids_are_never_used_again(own_index: Path, tiny_model: Path) -> None:
    last = max(Index.open(own_index).ids)
    with IndexWriter.open(own_index, tiny_model) as writer:
        writer.remove([int(last)])
        writer.commit()
        writer.add(made_up_item(1, np.ones(4096, np.float32)))
        writer.commit(is_complete=True)
    assert max(Index.open(own_index).ids) > last


def test_what_is_no_index_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            Index.open(directory)


def test_another_format_is_refused(own_index: Path) -> None:
    write_manifest(replace(read_manifest(own_index), format_version=99), own_index)
    with pytest.raises(IndexDirectoryError, match="has format 99, this program reads 3"):
        Index.open(own_index)


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("manifest.json", 40, "manifest.json is damaged"),
        (
            "features-0.f32",
            1000,
            r"should hold 294,912 bytes but has 1,000; run: lookalike index verify",
        ),
        ("records-0.bin", 100, r"should hold .* bytes but has 100"),
    ],
)
def test_a_truncated_file_is_named(own_index: Path, name: str, length: int, message: str) -> None:
    with (own_index / name).open("r+b") as file:
        file.truncate(length)
    with pytest.raises(IndexDirectoryError, match=message):
        Index.open(own_index)


def test_a_read_only_index_can_be_read(own_index: Path) -> None:
    for file in own_index.rglob("*"):
        file.chmod(0o555 if file.is_dir() else 0o444)
    assert Index.open(own_index).count() == 18


def test_a_missing_file_is_a_clear_error(own_index: Path) -> None:
    (own_index / "texts-0.utf8").unlink()
    with pytest.raises(
        IndexDirectoryError, match=r"texts-0\.utf8 is missing; run: lookalike index verify"
    ):
        Index.open(own_index)


def test_a_single_changed_byte_of_the_manifest_is_noticed(own_index: Path) -> None:
    whole = (own_index / "manifest.json").read_bytes()
    for place in range(0, len(whole), 7):
        (own_index / "manifest.json").write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        with pytest.raises(IndexDirectoryError):
            Index.open(own_index)


def test_a_reader_that_comes_during_a_compaction_finds_the_next_generation(
    own_index: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = read_manifest(own_index)
    with IndexWriter.open(own_index, tiny_model) as writer:
        writer.rewrite(writer.index.rows)
    manifests = iter([earlier, read_manifest(own_index)])
    monkeypatch.setattr("indexer.storage.index.read_manifest", lambda _: next(manifests))
    assert Index.open(own_index).manifest.generation == 1


def test_items_are_found_by_path_and_by_content(tiny_index: Path) -> None:
    index = Index.open(tiny_index)
    item = index.items()[7]
    assert index.ids[np.searchsorted(index.rows, index.rows_of_path(item.path))].tolist() == [
        item.id
    ]
    assert index.rows_of_content(item.sha256).tolist() == index.rows_of_path(item.path).tolist()
    assert not len(index.rows_of_path("nowhere.png"))
    assert not len(index.rows_of_content("0" * 64))


def test_removing_an_item_twice_counts_once(own_index: Path, tiny_model: Path) -> None:
    first = Index.open(own_index).items()[0].id
    with IndexWriter.open(own_index, tiny_model) as writer:
        writer.remove([first, first])
        writer.commit(is_complete=True)
    assert Index.open(own_index).count() == 17


def test_stats_say_what_is_in_it(tiny_index: Path) -> None:
    stats = Index.open(tiny_index).stats()
    assert (stats["num_items"], stats["kind"], stats["labels"]) == (
        18,
        "flat",
        {"blue": 6, "green": 6, "red": 6},
    )
    assert stats["num_bytes"] > 18 * 4096 * 4
