"""`index stats`, `quality`, `export` and `duplicates`: what they print."""

import json
import shutil
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.updates.compact import compact
from tests.indexer.conftest import Succeed
from tests.indexer.items import made_up_features, make_index, stand_in_model


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
    assert not {"search", "probe", "codes"} & facts.keys()


def test_stats_as_json_have_every_field(own_index: Path, succeed: Succeed) -> None:
    facts = json.loads(succeed("index", "stats", own_index, "--json")[0])
    assert " ".join(facts) == (
        "index model num_items num_removed commit is_complete kind search num_bytes "
        "created_at updated_at labels probe codes"
    )


def test_quality_prints_a_table_of_the_distances(tiny_index: Path, succeed: Succeed) -> None:
    out, _ = succeed("index", "quality", tiny_index, "-k", "3", "--device", "cpu")
    title, head, *rows, choice = out.splitlines()
    assert title == (
        f"{tiny_index} holds 18 items, searched as flat; 18 of its own items are the queries, "
        "each left out of its own answers and ranking"
    )
    assert head.split() == ["distance", "recall@3", "precision@3", "mAP"]
    assert [row.split()[:2] for row in rows] == [["euclidean", "1.0000"], ["cosine", "1.0000"]]
    facts = json.loads(
        succeed("index", "quality", tiny_index, "-k", "3", "--device", "cpu", "--json")[0]
    )
    assert [row["metric"] for row in facts["results"]] == ["euclidean", "cosine"]
    assert choice.startswith("The distances rank about equally well on this collection (share of")
    assert facts["better_metric"] == "euclidean"


def test_quality_of_other_images_counts_those_that_cannot_be_used(
    tiny_index: Path, succeed: Succeed, tmp_path: Path, colour_folder: Path
) -> None:
    shutil.copytree(colour_folder / "red", tmp_path / "queries" / "pink")
    (tmp_path / "queries" / "pink" / "song.png").write_bytes(b"no image")
    queries = tmp_path / "queries"
    out, _ = succeed("index", "quality", tiny_index, "--queries", queries, "--device", "cpu")
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
