"""Does memory grow with the number of images, while the cache is built and while the network is trained?

    python -m benchmarks.training_memory DATA [--image-size 128] [--images 1000 9000]

Trains on the first so many images of DATA, a process each, and watches what it holds: `anonymous` is the process's own memory,
`file` what the kernel keeps of the mapped canvases for it and takes back when it needs the room.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import record
from training.datasets import open_dataset

POLL_INTERVAL_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 9000])
    parser.add_argument("--name", default="training_memory")
    arguments = parser.parse_args()
    figures = {str(count): _peaks(arguments.data, count, arguments.image_size) for count in arguments.images}
    record(arguments.name, {"image_size": arguments.image_size, "peak_mb_by_images": figures})


def _peaks(data: str, num_images: int, image_size: int) -> dict[str, dict[str, int]]:
    """The highest anonymous and file-backed memory, in MB, of each phase."""
    examples = open_dataset(data).part("train")
    chosen = examples[:: len(examples) // num_images][:num_images]
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.csv")
        with listing.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(("path", "label"))
            writer.writerows((Path(str(example.source)).resolve(), example.label) for example in chosen)
        process = subprocess.Popen(
            [sys.executable, "-m", "lookalike", "train", listing, "--out", Path(folder, "model"), "--image-size", str(image_size),
             "--epochs", "1"], stderr=subprocess.DEVNULL,
        )  # fmt: skip
        peaks = {"cache": {"anonymous": 0, "file": 0}, "training": {"anonymous": 0, "file": 0}}
        cache = Path(folder, "model", "canvases", f"held-out-{image_size}px.json")
        while process.poll() is None:
            phase = peaks["training" if cache.exists() else "cache"]
            for name, field in (("anonymous", "RssAnon:"), ("file", "RssFile:")):
                phase[name] = max(phase[name], _status_mb(process.pid, field))
            time.sleep(POLL_INTERVAL_S)
        if process.returncode:
            raise SystemExit(f"training on {num_images} images failed with status {process.returncode}")
    return peaks


def _status_mb(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(field)), 0)


if __name__ == "__main__":
    main()
