"""How close is `index build` to what the cores can do, and does its memory grow with the images?

    python -m benchmarks.indexing MODEL DATA [DATA ...] [--images 2000 10000] [--rounds 3]

The limit is measured in the same run. It is the number of cores divided by the time to decode and
embed one image. Decoding and embedding are measured separately on one core. For embedding, the best
batch size is used. `decode` is the work for the network (read, decode, resize). `prepare` also
includes the work for the index (SHA-256, thumbnail).

The share of the limit is measured for the whole `index build`, including the commits and the
loading of the model. For the share `once_loaded`, the time of a build of one image is subtracted.
This time is spent on copying, checking and loading the model. With --images, the peak memory of
`index build` is also measured, for these numbers of images of the last DATA.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.memory import watch, write_listing
from benchmarks.record import record
from indexer.embedder import Embedder
from indexer.updates.build import build
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import (
    Pixels,
    open_picture,
    read_bytes,
    read_square,
    to_square,
    to_thumbnail,
)

BATCH_SIZES = (1, 8, 16, 32, 64)
NUM_ALONE = 256
"""Number of images in each round for which decoding and embedding are measured separately."""


@dataclass(frozen=True)
class Round:
    """The times of one round, in seconds."""

    num_images: int
    decode_s: float
    """Time to decode one image on one core. The next two times are measured in the same way."""
    prepare_s: float
    embed_s: float
    loading_s: float
    """Time of a build of one image."""
    build_s: float
    """Time of a build of all images."""

    def shares_of_limit(self, num_cores: int) -> dict[str, float]:
        """The minimum time for the work on all cores, divided by the time of the build."""
        shares = {}
        for suffix, build_s in (("", 0.0), ("_once_loaded", self.loading_s)):
            for name, part_s in (("prepare", self.prepare_s), ("decode", self.decode_s)):
                least_s = self.num_images * (part_s + self.embed_s) / num_cores
                shares[f"{name}_and_forward{suffix}"] = least_s / (self.build_s - build_s)
        return shares


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--images", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--most", type=int, default=1500, help="maximum number of images of each DATA per round"
    )
    parser.add_argument("--name", default="indexing")
    arguments = parser.parse_args()
    speed = {
        Path(data).name: _speed(arguments.model, data, arguments.rounds, arguments.most)
        for data in arguments.data
    }
    memory = {
        str(count): _memory(arguments.model, arguments.data[-1], count)
        for count in arguments.images
    }
    figures = {"speed": speed, "peak_mb_by_images": memory}
    record(arguments.name, figures, model=arguments.model)


def _speed(model: Path, data: str, num_rounds: int, max_images: int) -> dict[str, object]:
    """Measure the speeds on the images of a data set. Each round contains every measurement."""
    examples = open_dataset(data).part("all")
    examples = examples[:: max(len(examples) // max_images, 1)][:max_images]
    alone = examples[:NUM_ALONE]
    embedder = Embedder(model, num_threads=1)
    size = embedder.card.image_size
    squares = np.stack([read_square(_content(example), size) for example in alone])
    _, best_batch = min((_embed_s(embedder, squares, batch), batch) for batch in BATCH_SIZES)
    rounds = [
        Round(
            num_images=len(examples),
            decode_s=_alone_s(lambda example: read_square(_content(example), size), alone),
            prepare_s=_alone_s(lambda example: _prepare(example, size), alone),
            embed_s=_embed_s(embedder, squares, best_batch),
            loading_s=_build_s(model, examples[:1]),
            build_s=_build_s(model, examples),
        )
        for _ in range(num_rounds)
    ]
    facts = {"images": len(examples), "image_px": size, "best_batch": best_batch}
    return {**facts, **summary(rounds, os.cpu_count() or 1)}


def summary(rounds: Sequence[Round], num_cores: int) -> dict[str, object]:
    """The medians over the rounds, and the shares of the limit in each round."""
    shares = [one.shares_of_limit(num_cores) for one in rounds]
    rates = [one.num_images / one.build_s for one in rounds]
    return {
        "decode_ms": round(1000 * statistics.median(one.decode_s for one in rounds), 2),
        "prepare_ms": round(1000 * statistics.median(one.prepare_s for one in rounds), 2),
        "forward_ms": round(1000 * statistics.median(one.embed_s for one in rounds), 2),
        "loading_s": round(statistics.median(one.loading_s for one in rounds), 2),
        "images_per_s": round(statistics.median(rates), 1),
        "share_of_limit": {
            name: round(statistics.median(share[name] for share in shares), 3) for name in shares[0]
        },
        "share_by_round": [[round(value, 3) for value in share.values()] for share in shares],
    }


def _content(example: Example) -> bytes:
    return example.source if isinstance(example.source, bytes) else read_bytes(example.source)


def _prepare(example: Example, size: int) -> object:
    """Everything that `index build` computes from an image, except its feature."""
    content = _content(example)
    picture = open_picture(content, size=size)
    return hashlib.sha256(content).hexdigest(), to_square(picture, size), to_thumbnail(picture)


def _alone_s(work: Callable[[Example], object], examples: Sequence[Example]) -> float:
    """The seconds per image on one core. The images are processed one after the other."""
    started_s = time.perf_counter()
    for example in examples:
        work(example)
    return (time.perf_counter() - started_s) / len(examples)


def _embed_s(embedder: Embedder, squares: Pixels, batch_size: int) -> float:
    """The seconds per image to embed squares on one core."""
    embedder.embed(squares[:batch_size])
    starts = range(0, len(squares) - batch_size + 1, batch_size)
    started_s = time.perf_counter()
    for start in starts:
        embedder.embed(squares[start : start + batch_size])
    return (time.perf_counter() - started_s) / (len(starts) * batch_size)


def _build_s(model: Path, examples: Sequence[Example]) -> float:
    """The seconds to build an index of these images."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.csv")
        write_listing(examples, len(examples), listing)
        started_s = time.perf_counter()
        report = build(str(listing), model, Path(folder, "index"), device="cpu")
        assert report.num_added == len(examples), report
        return time.perf_counter() - started_s


def _memory(model: Path, data: str, num_images: int) -> dict[str, int]:
    """The peaks in MB while an index of `num_images` images is built."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.csv")
        write_listing(open_dataset(data).part("all"), num_images, listing)
        command = [sys.executable, "-m", "lookalike", "index", "build", str(listing)]
        command += ["--model", str(model), "--out", f"{folder}/index"]
        return watch(command, lambda: "build")["build"]


if __name__ == "__main__":
    main()
