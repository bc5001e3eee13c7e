"""Does memory grow with the number of images, while the cache is built and while the network is trained?

    python -m benchmarks.training_memory DATA [--image-size 128] [--images 1000 3000 9000]

Takes so many images of DATA, a fifth of which `lookalike train` holds out, and watches two processes of it: one until both parts
are decoded, and another that finds them in the cache and trains an epoch. `cache` is the peak of the first; `training` and `saving`
are the second's, before and after its epoch is validated and logged. `anonymous` is the process's own memory, `file` what the kernel
keeps of mapped files, the canvases among them, and takes back when it needs the room.
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
    figures = {
        str(count): _peaks(arguments.data, count, arguments.image_size)
        for count in arguments.images
    }
    record(arguments.name, {"image_size": arguments.image_size, "peak_mb_by_images": figures})


def _peaks(data: str, num_images: int, image_size: int) -> Peaks:
    """The peaks of building the cache of so many images, and of an epoch on them."""
    with tempfile.TemporaryDirectory() as folder:
        listing, cache, model = (
            Path(folder, "images.csv"),
            Path(folder, "cache"),
            Path(folder, "model"),
        )
        write_listing(open_dataset(data).part("train"), num_images, listing)
        num_held_out = len(open_dataset(str(listing)).part("held-out"))
        state = (
            cache / f"held-out-{image_size}px.json"
        )  # written every so many images, and after the last of all

        def building() -> str | None:
            return (
                None
                if state.exists() and json.loads(state.read_text())["num_read"] == num_held_out
                else "cache"
            )

        def training() -> str | None:
            return "saving" if (model / LOG_FILE).exists() else "training"

        command = [
            sys.executable,
            "-m",
            "lookalike",
            "train",
            str(listing),
            "--cache",
            str(cache),
            "--image-size",
            str(image_size),
            "--epochs",
            "1",
            "--out",
        ]
        cached = watch([*command, str(Path(folder, "unused"))], building)
        assert building() is None, f"{state} was not completed"
        return cached | watch([*command, str(model)], training)


if __name__ == "__main__":
    main()
