"""A CSV of the files that a command skipped because they are not usable images."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from training.files import write_atomically
from training.tables import to_cell

SKIPPED_FILE = "skipped.csv"


@dataclass(frozen=True)
class Skipped:
    """A file that is not a usable image, and the reason."""

    path: str
    reason: str


def describe_skipped(skipped: list[Skipped], file: Path) -> str:
    """A line for a command's summary: the number of skipped files and the CSV that lists them."""
    listing = f", listed with their reasons in {file}" if skipped else ""
    return f"skipped files: {len(skipped):,}{listing}"


def write_skipped(skipped: list[Skipped], file: Path) -> None:
    """Write the CSV `path,reason`. If no file was skipped, remove the CSV.

    A path that a spreadsheet would take for a formula begins with an apostrophe.
    """
    if not skipped:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "reason"))
    writer.writerows((to_cell(item.path), to_cell(item.reason)) for item in skipped)
    write_atomically(file, text.getvalue().encode())
