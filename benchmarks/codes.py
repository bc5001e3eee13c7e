"""Which binary codes rank best: the autoencoder's, ITQ's, LSH's, PCA's or product quantisation's?

    python -m benchmarks.codes MODEL DATA QUERIES --name imagenette [--bits 16 32 64 128 256 512]
        [--seeds 3] [--fit N] [--cache DIR] [--parts] [--only METHOD ...]

The images of DATA are the collection, and the images of QUERIES are the queries. MODEL embeds both.
By default, codes are learned from the collection, as in an index. With --fit N, they are learned
from N images of DATA, and these images do not belong to the collection. Codes are never learned
from labels or queries. `pixels` is the same autoencoder, trained on images of 32 x 32 pixels
instead of features. With --parts, the complete autoencoder is compared with autoencoders that lack
one part each.

mAP and precision are by label. mAP is over the whole ranking. Recall counts the 10 nearest
neighbours by the Euclidean distance of the features. The collection is shuffled once. For every
method, items at the same distance are ranked in this order. Methods that use random numbers are
repeated for each seed. The record contains the mean and the standard deviation of each score.

With --only, some methods are measured and their figures are printed. No record is written, because
a record contains all figures of one run.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.codes_judge import Images, Judge, Trial
from benchmarks.codes_methods import LENGTH_1, Method, all_methods, without_parts
from benchmarks.record import ROOT, record
from indexer.array_types import Floats
from indexer.embedder import Embedder
from indexer.metrics import unit
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import read_square
from training.network.model import read_card
from training.parallel import map_ahead, num_cores

BITS = (16, 32, 64, 128, 256, 512)
BATCH_SIZE = 32
PIXELS_PX = 32


def main() -> None:
    arguments = _arguments()
    trial = make_trial(
        _images(arguments.model, arguments.data, arguments.cache),
        _images(arguments.model, arguments.queries, arguments.cache),
        num_fitted=arguments.fit,
        max_queries=arguments.most_queries,
    )
    judge = Judge(trial)
    cosine = -(unit(trial.queries.features) @ unit(trial.collection.features).T)
    floats = {"euclidean": judge.score(judge.euclidean), "cosine": judge.score(cosine)}
    print({name: round(scores["mAP"], 4) for name, scores in floats.items()}, flush=True)
    methods = dict(without_parts(trial) if arguments.parts else all_methods(trial))
    by_method = {
        name: measure(name, method, judge, arguments.bits, arguments.seeds)
        for name, method in methods.items()
        if name in (arguments.only or methods)
    }
    if arguments.only:
        print(json.dumps(by_method, indent=2))
        return
    name = f"codes_{arguments.name}{'_parts' if arguments.parts else ''}"
    figures = {
        "model": read_card(arguments.model).id[:12],
        "num_fitted": len(trial.fitted.labels),
        "num_items": len(trial.collection.labels),
        "num_queries": len(trial.queries.labels),
        "seeds": arguments.seeds,
        "floats": floats,
        "by_method": by_method,
    }
    record(name, figures, model=arguments.model)
    if not arguments.parts:
        draw(figures, ROOT / "docs" / f"{name.replace('_', '-')}.png")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("queries")
    parser.add_argument("--name", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fit", type=int, default=0)
    parser.add_argument("--most-queries", type=int, default=2000)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="METHOD")
    parser.add_argument("--cache", type=Path, help="keep the features here for the next run")
    return parser.parse_args()


def make_trial(data: Images, queries: Images, *, num_fitted: int, max_queries: int) -> Trial:
    """Shuffle the images and the queries, and split the images.

    Codes are learned from `num_fitted` images that do not belong to the collection. If it is 0,
    they are learned from the collection.
    """
    order = np.random.default_rng(0).permutation(len(data.labels))
    query_order = np.random.default_rng(1).permutation(len(queries.labels))[:max_queries]
    collection = data[order[num_fitted:]]
    fitted = data[order[:num_fitted]] if num_fitted else collection
    return Trial(fitted, collection, queries[query_order])


def measure(
    name: str, method: Method, judge: Judge, lengths: list[int], num_seeds: int
) -> dict[str, dict[str, list[float]]]:
    """The mean and the standard deviation of each score over the seeds, by number of bits."""
    by_length = {}
    for num_bits in lengths:
        started = time.perf_counter()
        seeds = range(1 if name.startswith("PCA") else num_seeds)
        scores = [judge.score(method(num_bits, seed)) for seed in seeds]
        by_length[str(num_bits)] = {
            key: _mean_and_deviation([score[key] for score in scores]) for key in scores[0]
        }
        seconds = (time.perf_counter() - started) / len(scores)
        map_of_length = by_length[str(num_bits)]["mAP"]
        print(f"{name:>30} {num_bits:>4} bits  mAP {map_of_length}  {seconds:.1f} s per seed")
    return by_length


def _mean_and_deviation(values: list[float]) -> list[float]:
    """The mean and the standard deviation, with 4 digits. The deviation of a single value is 0."""
    return [round(mean(values), 4), round(stdev(values) if len(values) > 1 else 0.0, 4)]


def _images(model: Path, data: str, cache: Path | None) -> Images:
    """Embed the images of a data set, or read them from the cache."""
    name = f"{read_card(model).id[:12]}-{data.strip('/').replace('/', '-')}.npz"
    if cache and (cache / name).is_file():
        with np.load(cache / name) as arrays:
            return Images(arrays["features"], arrays["pixels"], arrays["labels"])
    examples, embedder = open_dataset(data).part("all"), Embedder(model, num_threads=1)
    class_names = sorted({str(example.label) for example in examples})

    def embed(batch: list[Example]) -> tuple[Floats, Floats]:
        squares = [read_square(example.source, embedder.card.image_size) for example in batch]
        pixels = np.stack([_small(square) for square in squares])
        return embedder.embed(np.stack(squares)).features, pixels

    starts = range(0, len(examples), BATCH_SIZE)
    batches = [list(examples[start : start + BATCH_SIZE]) for start in starts]
    with ThreadPoolExecutor(num_cores()) as pool:
        features, pixels = zip(*map_ahead(pool, embed, batches, ahead=2 * num_cores()), strict=True)
    labels = np.array([class_names.index(str(example.label)) for example in examples])
    images = Images(np.concatenate(features), np.concatenate(pixels), labels)
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
        arrays = {"features": images.features, "pixels": images.pixels, "labels": images.labels}
        np.savez(cache / name, **arrays)
    return images


def _small(square: np.ndarray) -> Floats:
    """A square as 32 x 32 pixels, (3072,) float32."""
    small = Image.fromarray(square).resize((PIXELS_PX, PIXELS_PX), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel()


def draw(figures: dict[str, Any], file: Path) -> None:
    """Draw mAP by number of bits, with one line per method.

    The error bars show two standard deviations. The right half of the figure shows only the range
    near and above the mAP of the features.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    floats = {name: figures["floats"][name]["mAP"] for name in ("euclidean", "cosine")}
    figure, (whole, near) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for axes in (whole, near):
        _draw_lines(axes, figures["by_method"])
        for (name, level), style in zip(floats.items(), (":", "-."), strict=True):
            axes.axhline(
                level, color="0.5", linestyle=style, linewidth=1, label=f"the floats, {name}"
            )
        axes.set(xlabel="bits per image", ylabel="mAP by label")
        axes.grid(alpha=0.3)
    near.set(ylim=(min(floats.values()) - 0.02, None), title="the same, nearer")
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


def _draw_lines(axes: Any, by_method: dict[str, Any]) -> None:
    """Draw one line per method.

    If a method is used with and without scaling to length 1, both lines have the same colour. The
    line with scaling is dashed.
    """
    colours: dict[str, str] = {}
    for name, by_length in by_method.items():
        lengths = [int(num_bits) for num_bits in by_length]
        means, deviations = zip(*(scores["mAP"] for scores in by_length.values()), strict=True)
        is_autoencoder = name == "autoencoder"
        colour = colours.setdefault(name.removesuffix(LENGTH_1), f"C{len(colours)}")
        axes.errorbar(
            lengths,
            means,
            yerr=[2 * deviation for deviation in deviations],
            label=name,
            marker="o",
            color="black" if is_autoencoder else colour,
            markersize=6 if is_autoencoder else 3,
            linewidth=2.5 if is_autoencoder else 1,
            linestyle="--" if name.endswith(LENGTH_1) else "-",
            capsize=2,
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(num_bits) for num_bits in lengths])


if __name__ == "__main__":
    main()
