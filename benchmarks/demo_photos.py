"""How long does `lookalike demo` take on photographs if the ImageNet weights are in the cache?

    python -m benchmarks.demo_photos DATA [--weights FILE]

The demo is timed from the start of the process to its first answer over HTTP. FILE contains
torchvision's weights. By default, they are made up, which takes the same time but has no meaning
for the answers. Then the accuracy is not recorded.
"""

import argparse
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torchvision.models import alexnet

from benchmarks.demo import time_to_answer
from benchmarks.record import record
from indexer.opening import open_index
from training.network.model import IMAGENET

GOAL_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        weights = arguments.weights or make_weights(Path(scratch))
        workdir = Path(scratch, "demo")
        options = [str(arguments.data.absolute()), "--init", IMAGENET]
        variables = {"LOOKALIKE_WEIGHTS_URL": str(weights.absolute())}
        first_s = time_to_answer(workdir, options, variables)
        again_s = time_to_answer(workdir, options, variables)
        opened = open_index(workdir / "index")
        figures: dict[str, Any] = {
            "images": opened.index.count(),
            "first_run_to_http_s": round(first_s, 1),
            "second_run_to_http_s": round(again_s, 1),
            "goal_s": GOAL_S,
            "has_made_up_weights": arguments.weights is None,
        }
        if arguments.weights and opened.probe:
            figures["top1_of_the_probe"] = opened.probe.facts.accuracy
    record("demo_photos", figures)


def make_weights(folder: Path) -> Path:
    """A file of random weights in torchvision's layout. Its name has the start of its SHA-256."""
    torch.manual_seed(0)
    file = folder / "weights.pth"
    torch.save(alexnet().state_dict(), file)
    checksum = sha256(file.read_bytes()).hexdigest()
    return file.rename(folder / f"alexnet-made-up-{checksum[:8]}.pth")


if __name__ == "__main__":
    main()
