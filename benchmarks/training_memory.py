"""Does memory grow with the number of images, while the cache is built and while the network is trained?

    python -m benchmarks.training_memory DATA [--image-size 128] [--images 1000 3000 9000]

Takes so many images of DATA, a fifth of which `lookalike train` holds out, and watches two processes of it: one until both parts
are decoded, and another that finds them in the cache and trains an epoch. `cache` is the peak of the first; `training` and `saving`
are the second's, before and after its epoch is validated and logged. `anonymous` is the process's own memory, `file` what the kernel
keeps of mapped files, the canvases among them, and takes back when it needs the room.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.record import record
from training.datasets import open_dataset
from training.log import LOG_FILE

POLL_INTERVAL_S = 0.02

Peaks = dict[str, dict[str, int]]
"""By phase, the highest anonymous and file-backed memory, in MB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 3000, 9000])
    parser.add_argument("--name", default="training_memory")
    arguments = parser.parse_args()
    figures = {str(count): _peaks(arguments.data, count, arguments.image_size) for count in arguments.images}
    record(arguments.name, {"image_size": arguments.image_size, "peak_mb_by_images": figures})


def _peaks(data: str, num_images: int, image_size: int) -> Peaks:
    """The peaks of building the cache of so many images, and of an epoch on them."""
    examples = open_dataset(data).part("train")
    if num_images > len(examples):
        raise SystemExit(f"{data} has {len(examples):,} training images, too few for {num_images:,}; pass fewer --images")
    chosen = examples[:: len(examples) // num_images][:num_images]
    with tempfile.TemporaryDirectory() as folder:
        listing, cache, model = Path(folder, "images.csv"), Path(folder, "cache"), Path(folder, "model")
        with listing.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(("path", "label"))
            writer.writerows((Path(str(example.source)).resolve(), example.label) for example in chosen)
        num_held_out = len(open_dataset(str(listing)).part("held-out"))
        state = cache / f"held-out-{image_size}px.json"  # written every so many images, and after the last of all

        def building() -> str | None:
            return None if state.exists() and json.loads(state.read_text())["num_read"] == num_held_out else "cache"

        def training() -> str | None:
            return "saving" if (model / LOG_FILE).exists() else "training"

        command = [
            sys.executable, "-m", "lookalike", "train", str(listing), "--cache", str(cache), "--image-size", str(image_size),
            "--epochs", "1", "--out",
        ]  # fmt: skip
        cached = _watch([*command, str(Path(folder, "unused"))], building)
        assert building() is None, f"{state} was not completed"
        return cached | _watch([*command, str(model)], training)


def _watch(command: list[str], phase: Callable[[], str | None]) -> Peaks:
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


if __name__ == "__main__":
    main()
