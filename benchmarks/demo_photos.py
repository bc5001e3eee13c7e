"""How long does `lookalike demo` take on photographs if the ImageNet weights are in the cache?

    python -m benchmarks.demo_photos DATA [--weights FILE]

The demo is timed from the start of the process to its first answer over HTTP. It gets no options,
and a cache of its own with the weights. FILE contains torchvision's weights. By default, they are
made up, which takes the same time but has no meaning for the answers. Then the accuracy is not
recorded.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torchvision.models import alexnet

from benchmarks.demo import time_to_answer
from benchmarks.record import record
from indexer.opening import open_index
from training.files import file_sha256

GOAL_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        weights = arguments.weights or make_weights(Path(scratch, "made-up.pth"))
        variables = fill_cache(Path(scratch, "cache"), weights)
        workdir = Path(scratch, "demo")
        options = [str(arguments.data.absolute())]
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
        record("demo_photos", figures, model=workdir / "model")


def make_weights(file: Path) -> Path:
    """Write random weights in torchvision's layout."""
    torch.manual_seed(0)
    torch.save(alexnet().state_dict(), file)
    return file


def fill_cache(cache: Path, weights: Path) -> dict[str, str]:
    """Let a cache look as if these weights had been downloaded into it.

    Returns the environment variables with which the demo finds them there. The host of the URL does
    not exist, so that nothing can be downloaded.
    """
    name = f"alexnet-{file_sha256(weights)[:8]}{weights.suffix}"
    cache.mkdir()
    (cache / name).symlink_to(weights.absolute())
    return {
        "LOOKALIKE_CACHE": str(cache),
        "LOOKALIKE_WEIGHTS_URL": f"https://weights.invalid/{name}",
    }


if __name__ == "__main__":
    main()
