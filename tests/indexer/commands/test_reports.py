"""`index stats`, `quality`, `export` and `duplicates`: what they print."""

import json
import shutil
from pathlib import Path

import pytest

from indexer.storage.directory import take_lock
from indexer.storage.index import Index
from indexer.updates.compact import compact
from tests.indexer.conftest import Succeed
from tests.indexer.items import made_up_features, make_index, rays, stand_in_model


@pytest.fixture
def copies(colour_folder: Path, tmp_path: Path) -> Path:
    """A folder with 12 images, each with a copy that has the same bytes."""
    for position, file in enumerate(sorted(colour_folder.rglob("*.png"))[:12]):
        for copy in ("first", "second"):
            folder = tmp_path / "copies" / copy
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / f"{position}.png")
    return tmp_path / "copies"


def test_stats_print_one_fact_per_line(own_index: Path, succeed: Succeed) -> None:
    compact(own_index, kind="ivf")
    lines = [line.strip() for line in succeed("index", "stats", own_index)[0].splitlines()]
    facts = dict(line.split(maxsplit=1) for line in lines)
    assert (facts["num_items"], facts["kind"], facts["index"]) == ("18", "ivf", str(own_index))
    assert facts["labels"] == "blue (6), green (6), red (6)"
    artefact = Index.open(own_index).manifest.artefacts["euclidean"]
    assert facts["euclidean"] == (
        f"ivf, recall@10 {artefact.facts['recall_at_10']:.4f} over 18 queries, "
        f"18 items, {artefact.num_bytes:,} bytes"
    )
    missing = {"search", "probe", "codes", "distance_comparison", "better_metric"}
    assert not missing & facts.keys()


def test_stats_as_json_have_every_field(own_index: Path, succeed: Succeed) -> None:
    facts = json.loads(succeed("index", "stats", own_index, "--json")[0])
    assert " ".join(facts) == (
        "index model precision num_items num_removed commit is_complete kind search num_bytes "
        "created_at updated_at labels probe codes distance_comparison"
    )


def test_quality_prints_a_table_of_the_distances(own_index: Path, succeed: Succeed) -> None:
    out, _ = succeed("index", "quality", own_index, "-k", "3", "--device", "cpu")
    title, head, *rows, choice = out.splitlines()
    assert title == (
        f"{own_index} holds 18 items, searched as flat; 18 of its own items are the queries, "
        "each left out of its own answers and ranking"
    )
    assert head.split() == ["distance", "recall@3", "precision@3", "mAP"]
    assert [row.split()[:2] for row in rows] == [["euclidean", "1.0000"], ["cosine", "1.0000"]]
    facts = json.loads(
        succeed("index", "quality", own_index, "-k", "3", "--device", "cpu", "--json")[0]
    )
    assert [row["metric"] for row in facts["results"]] == ["euclidean", "cosine"]
    assert choice.startswith("The distances rank about equally well on this collection (share of")
    assert facts["better_metric"] == "euclidean"


def test_an_index_keeps_which_distance_ranks_better(
    tiny_model: Path, tmp_path: Path, succeed: Succeed
) -> None:
    index = make_index(tmp_path / "index", tiny_model, *rays())
    out, err = succeed("index", "quality", index, "-k", "5", "--device", "cpu")
    assert out.splitlines()[-1].startswith("Cosine distance ranks better on this collection")
    assert err == ""
    facts = json.loads(succeed("index", "stats", index, "--json")[0])
    comparison = facts["distance_comparison"]
    euclidean = comparison["precisions"]["euclidean"]
    assert 0.3 < euclidean < 0.9
    assert comparison == {
        "better_metric": "cosine",
        "precisions": {"euclidean": euclidean, "cosine": 1.0},
        "k": 5,
        "commit": 1,
    }
    lines = [line.strip() for line in succeed("index", "stats", index)[0].splitlines()]
    assert lines[-1] == (
        "better_metric  cosine; share of the 5 nearest with the query's label at commit 1: "
        f"euclidean {euclidean:.1%}, cosine 100.0%"
    )


def test_quality_is_measured_while_another_process_changes_the_index(
    own_index: Path, succeed: Succeed
) -> None:
    with take_lock(own_index):
        out, err = succeed("index", "quality", own_index, "--device", "cpu", "--json")
    assert json.loads(out)["better_metric"] == "euclidean"
    assert err == (
        f"The index does not keep which distance ranks better: {own_index} is being changed by "
        "another process; wait until that process has finished\n"
    )
    assert Index.open(own_index).manifest.distance_comparison is None


def test_quality_of_other_images_counts_those_that_cannot_be_used(
    own_index: Path, succeed: Succeed, tmp_path: Path, colour_folder: Path
) -> None:
    shutil.copytree(colour_folder / "red", tmp_path / "queries" / "pink")
    (tmp_path / "queries" / "pink" / "song.png").write_bytes(b"no image")
    queries = tmp_path / "queries"
    out, _ = succeed("index", "quality", own_index, "--queries", queries, "--device", "cpu")
    title, _, *_, unanswerable, skipped = out.splitlines()
    assert title.endswith(f"6 images of {queries} are the queries")
    assert unanswerable == "queries whose label no other item has, counted for recall only: 6"
    assert skipped == "queries that could not be read, skipped: 1"


def test_export_prints_the_files_that_it_wrote(
    tiny_index: Path, succeed: Succeed, tmp_path: Path
) -> None:
    out, _ = succeed("index", "export", tiny_index, "--out", tmp_path, "--format", "npy")
    assert out == f"Wrote 18 items to {tmp_path}/features.npy and {tmp_path}/items.csv\n"


def test_duplicates_print_ten_groups_and_say_how_to_see_all(
    copies: Path, tiny_model: Path, tmp_path: Path, succeed: Succeed
) -> None:
    index = tmp_path / "index"
    succeed("index", "build", copies, "--model", tiny_model, "--out", index, "--device", "cpu")
    out, _ = succeed("index", "duplicates", index)
    groups = [line for line in out.splitlines() if line.startswith("group ")]
    assert len(groups) == 10
    assert groups[0] == "group 1, identical"
    assert out.splitlines()[-1] == "and 2 more groups; pass --out DIR to see them all"
    report = tmp_path / "report"
    lines = succeed("index", "duplicates", index, "--out", report)[0].splitlines()
    assert "and 2 more groups" in lines
    assert f"Wrote {report / 'duplicates.html'}" in lines
    facts = json.loads(succeed("index", "duplicates", index, "--threshold", "1", "--json")[0])
    assert (facts["threshold"], facts["num_images"], facts["num_identical"]) == (1, 24, 12)
    assert len(facts["groups"]) == 12


def test_an_index_without_duplicates_has_no_groups(tmp_path: Path, succeed: Succeed) -> None:
    model = stand_in_model(tmp_path / "model")
    index = make_index(tmp_path / "index", model, made_up_features(5), [None] * 5)
    facts = json.loads(succeed("index", "duplicates", index, "--json")[0])
    assert (facts["num_items"], facts["num_images"], facts["groups"]) == (5, 0, [])
