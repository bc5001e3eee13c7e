"""How much memory a command takes, phase by phase."""

import csv
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.data.examples import Example

POLL_INTERVAL_S = 0.02

Peaks = dict[str, dict[str, int]]
"""By phase, the highest anonymous and file-backed memory, in MB."""


def write_listing(examples: Sequence[Example], num_images: int, file: Path) -> None:
    """Writes a CSV of so many of the images, evenly chosen."""
    if num_images > len(examples):
        raise SystemExit(
            f"there are {len(examples):,} images, too few for {num_images:,}; pass fewer --images"
        )
    chosen = examples[:: len(examples) // num_images][:num_images]
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "label"))
        writer.writerows((Path(str(example.source)).resolve(), example.label) for example in chosen)


def watch(command: list[str], phase: Callable[[], str | None]) -> Peaks:
    """The peaks of a process until it ends, or until `phase` is None, when it is ended."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peaks: Peaks = {}
    while process.poll() is None:
        if (name := phase()) is None:
            process.kill()
            process.wait()
            return peaks
        highest = peaks.setdefault(name, {"anonymous": 0, "file": 0})
        for kind, field in (("anonymous", "RssAnon:"), ("file", "RssFile:")):
            highest[kind] = max(highest[kind], _status_mb(process.pid, field))
        time.sleep(POLL_INTERVAL_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
    return peaks


def _status_mb(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(field)), 0)
