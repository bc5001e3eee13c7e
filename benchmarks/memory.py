"""The memory that a command uses in each of its phases."""

import csv
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.data.examples import Example

POLL_INTERVAL_S = 0.02
STATUS_FIELDS = {"anonymous": "RssAnon:", "file": "RssFile:"}

Peaks = dict[str, dict[str, int]]
"""The highest anonymous and file-backed memory in MB, by phase."""


def write_listing(examples: Sequence[Example], num_images: int, file: Path) -> None:
    """Write a CSV of `num_images` examples at equal intervals."""
    if num_images > len(examples):
        raise SystemExit(
            f"--images must be at most {len(examples):,}, the number of images, "
            f"got {num_images:,}; pass a smaller number"
        )
    chosen = examples[:: len(examples) // num_images][:num_images]
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "label"))
        writer.writerows((Path(str(example.source)).resolve(), example.label) for example in chosen)


def watch(command: list[str], phase: Callable[[], str | None]) -> Peaks:
    """Run a command, and return the peaks of its memory by phase.

    `phase` returns the name of the current phase. If it returns None, the command is killed.
    """
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peaks: Peaks = {}
    while process.poll() is None:
        if (name := phase()) is None:
            process.kill()
            process.wait()
            return peaks
        highest = peaks.setdefault(name, dict.fromkeys(STATUS_FIELDS, 0))
        for kind, field in STATUS_FIELDS.items():
            highest[kind] = max(highest[kind], _status_mb(process.pid, field))
        time.sleep(POLL_INTERVAL_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
    return peaks


def _status_mb(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # the process has just ended
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(field)), 0)
