"""The list of skipped files."""

import csv
from pathlib import Path

import pytest

from training.data.skipped import Skipped, describe_skipped, write_skipped
from training.tables import from_cell


def test_the_list_of_skipped_files_can_be_read_back(tmp_path: Path) -> None:
    file = tmp_path / "skipped.csv"
    skipped = [Skipped('a, "b".jpg', "cut off"), Skipped("é\n.jpg", "empty; send it again")]
    write_skipped(skipped, file)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [Skipped(row["path"], row["reason"]) for row in rows] == skipped


def test_the_list_is_removed_if_no_file_was_skipped(tmp_path: Path) -> None:
    file = tmp_path / "skipped.csv"
    write_skipped([Skipped("a.jpg", "cut off")], file)
    write_skipped([], file)
    assert not file.exists()
    write_skipped([], file)  # it is not an error if there is no list


def test_the_summary_has_the_number_of_skipped_files_and_names_the_list() -> None:
    file = Path("model", "skipped.csv")
    assert describe_skipped([], file) == "skipped files: 0"
    skipped = [Skipped("a.jpg", "cut off")] * 1234
    assert describe_skipped(skipped, file) == (
        "skipped files: 1,234, listed with their reasons in model/skipped.csv"
    )


@pytest.mark.parametrize("path", ["=HYPERLINK(1).jpg", "@SUM(1+1)*cmd|x", "\t-1.jpg", "'=1.jpg"])
def test_a_path_that_looks_like_a_formula_is_text_and_can_be_read_back(
    path: str, tmp_path: Path
) -> None:
    file = tmp_path / "skipped.csv"
    write_skipped([Skipped(path, "cut off")], file)
    with file.open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert row["path"] == "'" + path
    assert from_cell(row["path"]) == path
