"""The files that a command skipped because they are not usable images, and the CSV that lists them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from training.files import write_atomically

SKIPPED_FILE = "skipped.csv"


@dataclass(frozen=True)
class Skipped:
    """A file that is not a usable image, and the reason."""

    path: str
    reason: str


def describe_skipped(skipped: list[Skipped], file: Path) -> str:
    """One line for a command's summary: how many files were skipped, and where `write_skipped` lists them."""
    where = f", listed with their reasons in {file}" if skipped else ""
    return f"skipped files: {len(skipped):,}{where}"


def write_skipped(skipped: list[Skipped], file: Path) -> None:
    """Write the CSV `path,reason`. If no file was skipped, the CSV is removed."""
    if not skipped:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "reason"))
    writer.writerows((item.path, item.reason) for item in skipped)
    write_atomically(file, text.getvalue().encode())
