"""The report of duplicates: a page, a table and what the command prints."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.reports.duplicates import Duplicates
from indexer.reports.duplicates_page import COLUMNS, to_csv, to_html, write_report
from indexer.storage.index import Index
from tests.indexer.conftest import Succeed
from training.errors import UserError


def test_the_page_shows_paths_as_text_and_every_thumbnail_is_there(
    duplicates_index: Path, duplicates: Duplicates, tmp_path: Path
) -> None:
    index = Index.open(duplicates_index)
    html, table = write_report(index, duplicates, tmp_path / "report")
    page = html.read_text("utf-8")
    assert "<script" not in page
    assert "a&quot;b\\n&lt;script&gt;&amp;.png" in page
    assert page.count("<section") == 3
    for group in duplicates.groups:
        for member in group.members:
            file = f"thumbnails/{member.item.id}.jpg"
            assert f'src="{file}"' in page
            assert (tmp_path / "report" / file).read_bytes() == index.thumbnail(member.item.id)
    assert table.read_text("utf-8").startswith(",".join(COLUMNS))


def test_a_report_replaces_an_earlier_one_and_nothing_else(
    duplicates_index: Path, duplicates: Duplicates, tmp_path: Path
) -> None:
    index, thumbnails = Index.open(duplicates_index), tmp_path / "thumbnails"
    write_report(index, duplicates, tmp_path)
    for name in ("holiday.jpg", "1000.jpg"):
        (thumbnails / name).write_bytes(b"the user's own")
    write_report(
        index,
        Duplicates(duplicates.groups[:1], duplicates.num_items, duplicates.num_images),
        tmp_path,
    )
    kept = {f"{member.item.id}.jpg" for member in duplicates.groups[0].members}
    assert {file.name for file in thumbnails.iterdir()} == kept | {"holiday.jpg", "1000.jpg"}
    (tmp_path / "duplicates.csv").write_text("id,holiday\n1000,sea\n")
    write_report(index, Duplicates((), 7, 0), tmp_path)
    assert {file.name for file in thumbnails.iterdir()} == kept | {"holiday.jpg", "1000.jpg"}


def test_the_table_has_every_item_with_its_path_unchanged(duplicates: Duplicates) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(duplicates), newline="")))
    members = [member for group in duplicates.groups for member in group.members]
    assert [row["path"] for row in rows] == [member.item.path for member in members]
    assert [row["group"] for row in rows] == ["1"] * 4 + ["2"] * 2 + ["3"] * 2
    assert rows[1]["identical_to"] == rows[0]["id"]
    first = rows[0]
    assert (first["label"], first["width"], first["height"]) == ("a", "320", "240")
    assert first["similarity"] == "1.0000"


def test_a_page_without_duplicates_says_so() -> None:
    assert "No duplicates among 7 images." in to_html(Duplicates((), 7, 0))


def test_the_report_is_not_written_into_the_index(
    duplicates_index: Path, duplicates: Duplicates
) -> None:
    with pytest.raises(UserError, match="needs its own directory"):
        write_report(Index.open(duplicates_index), duplicates, duplicates_index)


def test_the_command_prints_a_summary_or_json_and_writes_the_report(
    duplicates_index: Path, tmp_path: Path, succeed: Succeed
) -> None:
    printed, _ = succeed("index", "duplicates", duplicates_index)
    assert "3 groups with 8 of 15 images; 3 of them repeat the bytes of another image." in printed
    assert "b/0-small.jpg" in printed
    printed, _ = succeed("index", "duplicates", duplicates_index, "--json")
    groups = json.loads(printed)["groups"]
    assert [len(group["items"]) for group in groups] == [4, 2, 2]
    succeed("index", "duplicates", duplicates_index, "--out", tmp_path / "report")
    files = {file.name for file in (tmp_path / "report").iterdir()}
    assert files == {"duplicates.html", "duplicates.csv", "thumbnails"}


@pytest.mark.parametrize("text", ["=1+1", "@SUM(1)", "-1", "\r=1"])
def test_formulas_in_the_table_are_text_unless_it_is_raw(text: str, duplicates: Duplicates) -> None:
    group = duplicates.groups[0]
    members = tuple(
        replace(member, item=replace(member.item, path=text, label=text))
        for member in group.members
    )
    named = Duplicates((replace(group, members=members),), 4, 0)
    for raw, mark in ((False, "'"), (True, "")):
        table = to_csv(named, raw=raw)
        for row in csv.DictReader(io.StringIO(table, newline="")):
            assert (row["path"], row["label"]) == (mark + text, mark + text)
            assert row["similarity"][0].isdigit()
