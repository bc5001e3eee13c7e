"""Does memory grow with the number of images, while the cache is built and while a network trains?

    python -m benchmarks.training_memory DATA [--image-size 128] [--images 1000 3000 9000]

For each number of images, two processes of `lookalike train` are measured. A fifth of the images is
held out. The first process is measured until all images are decoded into the cache. The second
process uses this cache and trains one epoch. `cache` is the peak memory of the first process.
`training` and `saving` are the peaks of the second process, before and after its epoch is validated
and logged. `anonymous` is memory that belongs to the process only. `file` is the memory of mapped
files, such as the canvases. The kernel can reclaim `file` memory at any time.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import Peaks, watch, write_listing
from benchmarks.record import record
from training.data.datasets import open_dataset
from training.learning.log import LOG_FILE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 3000, 9000])
    parser.add_argument("--name", default="training_memory")
    arguments = parser.parse_args()
    peaks = {
        str(count): _peaks(arguments.data, count, arguments.image_size)
        for count in arguments.images
    }
    record(arguments.name, {"image_size": arguments.image_size, "peak_mb_by_images": peaks})


def _peaks(data: str, num_images: int, image_size: int) -> Peaks:
    """The peaks while the cache of `num_images` images is built, and during one epoch on them."""
    with tempfile.TemporaryDirectory() as folder:
        listing, cache, model = (Path(folder, name) for name in ("images.csv", "cache", "model"))
        write_listing(open_dataset(data).part("train"), num_images, listing)
        num_held_out = len(open_dataset(str(listing)).part("held-out"))
        state = cache / f"held-out-{image_size}px.json"  # written last, at intervals

        def cache_phase() -> str | None:
            is_complete = (
                state.exists() and json.loads(state.read_text())["num_read"] == num_held_out
            )
            return None if is_complete else "cache"

        def training_phase() -> str:
            return "saving" if (model / LOG_FILE).exists() else "training"

        command = [sys.executable, "-m", "lookalike", "train", str(listing), "--cache", str(cache)]
        command += ["--image-size", str(image_size), "--epochs", "1", "--out"]
        peaks = watch([*command, str(Path(folder, "unused"))], cache_phase)
        assert cache_phase() is None, f"{state} was not completed"
        return peaks | watch([*command, str(model)], training_phase)


if __name__ == "__main__":
    main()
