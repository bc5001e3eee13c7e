"""How near does batch indexing come to what the cores can do, and does its memory grow with the collection?

    python -m benchmarks.indexing MODEL DATA [DATA ...] [--images 2000 10000] [--rounds 3]

The limit is reckoned in the same run: the number of cores over the time that an image takes to decode and to embed, each alone on
one core, the network at its best batch. `decode` is what the network needs (read, decode, resize); `prepare` adds what the index
keeps besides (SHA-256, thumbnail). The share is the whole of `index build`, its commits and the loading of the model with it; beside it the
share without what a build of a single image takes, which is the model's copying, checking and loading. With --images, the peak memory
of `index build` on so many images of the last DATA.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
"""Images that a part is measured on alone, in each round."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--images", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--most", type=int, default=1500, help="Images of each DATA that are indexed in a round."
    )
    parser.add_argument("--name", default="indexing")
    arguments = parser.parse_args()
    figures = {
        Path(data).name: _speed(arguments.model, data, arguments.rounds, arguments.most)
        for data in arguments.data
    }
    memory = {
        str(count): _memory(arguments.model, arguments.data[-1], count)
        for count in arguments.images
    }
    record(arguments.name, {"speed": figures, "peak_mb_by_images": memory})


def _speed(model: Path, data: str, num_rounds: int, most: int) -> dict[str, object]:
    """The speeds of a data set's images, medians of rounds in which everything takes its turn."""
    examples = open_dataset(data).part("all")
    examples = examples[:: max(len(examples) // most, 1)][:most]
    embedder = Embedder(model, num_threads=1)
    size = embedder.card.image_size
    sources = [
        read_bytes(example.source) if not isinstance(example.source, bytes) else example.source
        for example in examples[:NUM_ALONE]
    ]
    squares = np.stack([read_square(source, size) for source in sources])
    forward_s = min((_forward_s(embedder, squares, batch), batch) for batch in BATCH_SIZES)
    rounds = []
    for _ in range(num_rounds):
        decode_s = _alone_s(
            lambda example: read_square(_source(example), size), examples[:NUM_ALONE]
        )
        prepare_s = _alone_s(lambda example: _prepare(example, size), examples[:NUM_ALONE])
        embed_s = _forward_s(embedder, squares, forward_s[1])
        loading_s, build_s = _build_s(model, examples[:1]), _build_s(model, examples)
        cores = os.cpu_count() or 1
        prepared_s, decoded_s = (
            len(examples) * (part_s + embed_s) / cores for part_s in (prepare_s, decode_s)
        )
        shares = (
            prepared_s / build_s,
            decoded_s / build_s,
            prepared_s / (build_s - loading_s),
            decoded_s / (build_s - loading_s),
        )
        rounds.append((decode_s, prepare_s, embed_s, loading_s, len(examples) / build_s, *shares))
    medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
    names = (
        "prepare_and_forward",
        "decode_and_forward",
        "prepare_and_forward_once_loaded",
        "decode_and_forward_once_loaded",
    )
    return {
        "images": len(examples),
        "image_px": size,
        "best_batch": forward_s[1],
        "decode_ms": round(1000 * medians[0], 2),
        "prepare_ms": round(1000 * medians[1], 2),
        "forward_ms": round(1000 * medians[2], 2),
        "loading_s": round(medians[3], 2),
        "images_per_s": round(medians[4], 1),
        "share_of_limit": {
            name: round(value, 3) for name, value in zip(names, medians[5:], strict=True)
        },
        "share_by_round": [[round(value, 3) for value in values[5:]] for values in rounds],
    }


def _source(example: Example) -> bytes:
    return example.source if isinstance(example.source, bytes) else read_bytes(example.source)


def _prepare(example: Example, size: int) -> object:
    content = _source(example)
    picture = open_picture(content, size=size)
    return hashlib.sha256(content).hexdigest(), to_square(picture, size), to_thumbnail(picture)


def _alone_s(work: Callable[[Example], object], examples: Sequence[Example]) -> float:
    """Seconds an image, one after the other on one core."""
    started_s = time.perf_counter()
    for example in examples:
        work(example)
    return (time.perf_counter() - started_s) / len(examples)


def _forward_s(embedder: Embedder, squares: Pixels, batch: int) -> float:
    """Seconds an image, on one core."""
    embedder.embed(squares[:batch])
    started_s = time.perf_counter()
    for start in range(0, len(squares) - batch + 1, batch):
        embedder.embed(squares[start : start + batch])
    return (time.perf_counter() - started_s) / (len(squares) // batch * batch)


def _build_s(model: Path, examples: Sequence[Example]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.csv")
        write_listing(examples, len(examples), listing)
        started_s = time.perf_counter()
        report = build(str(listing), model, Path(folder, "index"), device="cpu")
        assert report.num_added == len(examples), report
        return time.perf_counter() - started_s


def _memory(model: Path, data: str, num_images: int) -> dict[str, int]:
    """The peaks of building an index of so many images, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.csv")
        write_listing(open_dataset(data).part("all"), num_images, listing)
        command = [
            sys.executable,
            "-m",
            "lookalike",
            "index",
            "build",
            str(listing),
            "--model",
            str(model),
            "--out",
            f"{folder}/index",
        ]
        return watch(command, lambda: "build")["build"]


if __name__ == "__main__":
    main()
