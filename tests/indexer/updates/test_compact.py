"""`--kind`, `--memory` and `--metric` as a person types them."""

import json
import shutil
from pathlib import Path

import pytest

from indexer.storage.manifest import read_manifest
from tests.conftest import Run, coloured


def test_an_index_is_built_and_changed_to_a_kind_by_hand(
    run: Run, colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    status, _, _ = run(
        "index",
        "build",
        colour_folder,
        "--model",
        tiny_model,
        "--out",
        index,
        "--kind",
        "ivf-sq8",
        "--memory",
        "1kB",
        "--device",
        "cpu",
    )
    assert status == 0
    status, printed, _ = run("index", "stats", index)
    assert status == 0
    assert "ivf-sq8, recall@10 " in printed
    coloured("red", 77).save(tmp_path / "another.png")
    assert run("index", "add", index, tmp_path / "another.png")[0] == 0
    assert read_manifest(index).search == {"kind": "ivf-sq8", "memory_bytes": 1000}
    assert run("index", "compact", index, "--kind", "hnsw-fp16")[0] == 0
    _, printed, _ = run("index", "stats", index, "--json")
    stats = json.loads(printed)
    assert stats["kind"] == stats["search"]["cosine"]["kind"] == "hnsw-fp16"
    assert stats["search"]["euclidean"]["num_covered"] == 19
    assert stats["search"]["euclidean"]["num_bytes"] > 19 * 2 * 4096


def test_too_small_a_memory_is_told_of_with_what_it_takes(
    run: Run, tiny_index: Path, tmp_path: Path
) -> None:
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    status, _, said = run("index", "compact", index, "--kind", "ivf", "--memory", "1kB")
    assert status == 0
    assert "ivf needs about 688.4 kB, more than the 1.0 kB of --memory" in said


def test_what_a_compaction_remembers_is_said(run: Run, tiny_index: Path, tmp_path: Path) -> None:
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    assert run("index", "compact", index) == (0, "nothing to compact\n", "")
    assert run("index", "compact", index, "--memory", "4GB") == (
        0,
        "searching may take 4.0 GB from now on\nsearched exactly\n",
        "",
    )
    assert read_manifest(index).search == {"memory_bytes": 4 * 10**9}


def test_a_compaction_makes_its_structures_where_it_is_told(
    run: Run, tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    status, _, said = run("index", "compact", index, "--kind", "ivf", "--device", "gpu")
    assert (status, said[:32]) == (1, "lookalike: a GPU was asked for b")
    assert run("index", "compact", index, "--kind", "ivf", "--device", "cpu").status == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_by_either_distance(run: Run, tiny_index: Path, tmp_path: Path, metric: str) -> None:
    coloured("green", 900).save(tmp_path / "query.png")
    status, printed, _ = run(
        "search", tiny_index, tmp_path / "query.png", "-k", "3", "--metric", metric, "--json"
    )
    answer = json.loads(printed)
    assert (status, answer["metric"]) == (0, metric)
    matches = answer["results"][0]["matches"]
    assert [match["label"] for match in matches] == ["green"] * 3
    assert (max(match["distance"] for match in matches) < 1) == (metric == "cosine")
    assert run("search", tiny_index, tmp_path / "query.png", "--metric", metric)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--kind", "ivf-pq"),
            "lookalike: --kind must be one of auto, flat, ivf, ivf-fp16, ivf-sq8, hnsw-fp16, hnsw-sq8, got 'ivf-pq'\n",
        ),
        (
            ("--memory", "much"),
            "lookalike: --memory takes a size such as 4GB, 512MB or 1.5GiB, got 'much'\n",
        ),
    ],
)
def test_a_kind_or_a_memory_that_is_none_is_one_line(
    run: Run, tiny_index: Path, arguments: tuple[str, str], message: str
) -> None:
    assert run("index", "compact", tiny_index, *arguments) == (1, "", message)


def test_a_metric_that_there_is_not_is_one_line(run: Run, tiny_index: Path, tmp_path: Path) -> None:
    coloured("green", 900).save(tmp_path / "query.png")
    said = "lookalike: --metric must be one of euclidean, cosine, hamming, got 'manhattan'\n"
    assert run("search", tiny_index, tmp_path / "query.png", "--metric", "manhattan") == (
        1,
        "",
        said,
    )
