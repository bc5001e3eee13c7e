"""Compactions: when they happen, what they keep, and the options as a person types them."""

import json
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import read_manifest
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.conftest import Run, coloured
from tests.indexer.items import items_by_path


def test_a_compaction_waits_for_a_fifth_of_the_rows(own_index: Path) -> None:
    remove(own_index, ids=[1, 2, 3])
    assert compact(own_index).num_freed_bytes == 0
    assert read_manifest(own_index).generation == 0
    remove(own_index, ids=[4])
    assert compact(own_index).num_freed_bytes > 4 * 4 * 4096
    assert compact(own_index, force=True).num_removed == 0
    assert read_manifest(own_index).generation == 1
    remove(own_index, ids=[5])
    assert compact(own_index, force=True).num_freed_bytes > 4 * 4096


def test_after_a_compaction_ids_stay_bytes_are_gone_and_readers_keep_their_commit(
    own_index: Path,
) -> None:
    before, reader = items_by_path(own_index), Index.open(own_index)
    removed = reader.item_bytes(reader.rows_of_path("red/1.png")[0])
    remove(own_index, paths=["red/1.png"])
    compact(own_index, force=True)
    del before["red/1.png"]
    assert items_by_path(own_index) == before
    on_disk = b"".join(file.read_bytes() for file in own_index.iterdir() if file.is_file())
    for content in (removed.feature, removed.thumbnail, b"red/1.png"):
        assert content not in on_disk
    assert len({item.path for item in reader.items()}) == 18
    assert reader.item_bytes(reader.rows_of_path("red/1.png")[0]) == removed
    assert verify(own_index).is_clean


def test_an_index_is_built_and_changed_to_a_kind_by_hand(
    run: Run, colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    where = ("--model", tiny_model, "--out", index, "--device", "cpu")
    how = ("--kind", "ivf-sq8", "--memory", "1kB")
    assert run("index", "build", colour_folder, *where, *how).status == 0
    status, printed, _ = run("index", "stats", index)
    assert status == 0
    assert "ivf-sq8, recall@10 " in printed
    coloured("red", 77).save(tmp_path / "another.png")
    assert run("index", "add", index, tmp_path / "another.png").status == 0
    assert read_manifest(index).search == {"kind": "ivf-sq8", "memory_bytes": 1000}
    assert run("index", "compact", index, "--kind", "hnsw-fp16").status == 0
    stats = json.loads(run("index", "stats", index, "--json").out)
    assert stats["kind"] == stats["search"]["cosine"]["kind"] == "hnsw-fp16"
    assert stats["search"]["euclidean"]["num_covered"] == 19
    assert stats["search"]["euclidean"]["num_bytes"] > 19 * 2 * 4096


def test_too_little_memory_is_a_warning_that_says_what_is_needed(run: Run, own_index: Path) -> None:
    status, _, err = run("index", "compact", own_index, "--kind", "ivf", "--memory", "1kB")
    assert status == 0
    assert "ivf needs about 688.4 kB of memory but --memory allows 1.0 kB" in err


def test_the_command_says_which_options_a_compaction_remembers(run: Run, own_index: Path) -> None:
    assert run("index", "compact", own_index) == (0, "nothing to compact\n", "")
    assert run("index", "compact", own_index, "--memory", "4GB") == (
        0,
        "searches may use 4.0 GB of memory from now on\nsearches are exact\n",
        "",
    )
    assert read_manifest(own_index).search == {"memory_bytes": 4 * 10**9}


def test_a_compaction_makes_its_structures_on_the_given_device(
    run: Run, own_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    status, _, err = run("index", "compact", own_index, "--kind", "ivf", "--device", "gpu")
    assert (status, err[:32]) == (1, "lookalike: a GPU was asked for b")
    assert run("index", "compact", own_index, "--kind", "ivf", "--device", "cpu").status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--kind", "ivf-pq"),
            "lookalike: --kind must be one of auto, flat, ivf, ivf-fp16, ivf-sq8, "
            "hnsw-fp16, hnsw-sq8, got 'ivf-pq'\n",
        ),
        (
            ("--memory", "much"),
            "lookalike: --memory must be a size such as 4GB, 512MB or 1.5GiB, got 'much'\n",
        ),
    ],
)
def test_an_unknown_kind_or_memory_is_one_line(
    run: Run, tiny_index: Path, arguments: tuple[str, str], message: str
) -> None:
    assert run("index", "compact", tiny_index, *arguments) == (1, "", message)
