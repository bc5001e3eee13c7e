"""Whose binary codes rank best? The autoencoder beside ITQ, LSH, sign of PCA and product quantisation, by length.

    python -m benchmarks.codes MODEL DATA QUERIES --name imagenette [--bits 16 32 64 128 256 512] [--seeds 3] [--fit N] [--cache DIR]
        [--only METHOD ...]

Images of DATA are the collection, those of QUERIES ask; both are embedded by MODEL. Codes are learnt from the collection, as an index
learns them, or with --fit from N images of DATA that are then no part of it; never from labels or queries. LSH, ITQ and product
quantisation are FAISS's, PCA is NumPy's, each on the features as they are and at length 1. `pixels` is the same autoencoder on the
images themselves, 32 x 32. With --parts each part of the autoencoder is left out in turn. With --only some methods or lengths are
measured again, and join what is recorded of the others.

mAP is by label over the whole ranking, precision by label too; recall is of the 10 Euclidean neighbours by the features. The collection
is in one random order, and ties go by it, for every method alike. Mean and standard deviation over seeds, of the methods that chance
enters.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.record import RESULTS, record
from indexer.array_types import Codes, Floats
from indexer.embedder import Embedder
from indexer.learned.autoencoder import Settings, fit
from indexer.metrics import unit
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import read_square
from training.network.model import read_card
from training.parallel import map_ahead, num_cores

_faiss: Any = faiss  # its stubs lack some, and say None of others
BITS = (16, 32, 64, 128, 256, 512)
BATCH = 32
PIXELS_PX = 32
LENGTH_1 = ", length 1"
DOCS = RESULTS.parent.parent / "docs"
MOST_COMPONENTS = 512
PRECISION_AT = (6, 100)
RECALL_AT = (10, 100, 1000)
"""How far down a ranking by code the 10 Euclidean neighbours are looked for."""
PARTS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "no neighbourhoods": {"neighbour_share": 0.0},
    "no detail bits": {"detail_share": 0.0},
    "no noise": {"noise": 0.0},
    "no reconstruction": {"reconstruction_weight": 0.0},
    "reconstruction only": {"similarity_weight": 0.0},
    "straight-through line, not tanh": {"sharpness": 0.0},
}

Distances = npt.NDArray[np.generic]
"""(Q, N): of each query to each item of the collection."""
Method = Callable[[int, int], Distances]
"""From a number of bits and a seed."""


@dataclass(frozen=True)
class Images:
    """Images as features (n, 4096), as pixels (n, 3072) float32, and as numbers of labels (n,)."""

    features: Floats
    pixels: Floats
    labels: npt.NDArray[np.int64]

    def __getitem__(self, places: npt.NDArray[np.int64]) -> "Images":
        return Images(self.features[places], self.pixels[places], self.labels[places])


@dataclass(frozen=True)
class Trial:
    """What codes are learnt from, what they are looked for in, and what asks."""

    fitted: Images
    collection: Images
    queries: Images


def main() -> None:
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
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--cache", type=Path, help="Keep the features here.")
    arguments = parser.parse_args()
    data, queries = (
        _images(arguments.model, name, arguments.cache)
        for name in (arguments.data, arguments.queries)
    )
    order = np.random.default_rng(0).permutation(len(data.labels))
    queries = queries[
        np.random.default_rng(1).permutation(len(queries.labels))[: arguments.most_queries]
    ]
    collection = data[order[arguments.fit :]]
    trial = Trial(
        data[order[: arguments.fit]] if arguments.fit else collection, collection, queries
    )
    judge = Judge(trial)
    floats = {
        "euclidean": judge.score(judge.euclidean),
        "cosine": judge.score(-(unit(queries.features) @ unit(collection.features).T)),
    }
    print({name: round(figures["mAP"], 4) for name, figures in floats.items()}, flush=True)
    methods = _parts(trial) if arguments.parts else dict(_methods(trial))
    only = set(arguments.only or methods)
    measured = {
        name: _measured(name, methods[name], judge, arguments.bits, arguments.seeds)
        for name in methods
        if name in only
    }
    name = f"codes_{arguments.name}{'_parts' if arguments.parts else ''}"
    recorded = (
        json.loads((RESULTS / f"{name}.json").read_text())["figures"]["by_method"]
        if arguments.only
        else {}
    )
    measured = {
        **recorded,
        **{
            name: _by_length({**recorded.get(name, {}), **found})
            for name, found in measured.items()
        },
    }
    figures = {
        "model": read_card(arguments.model).id[:12],
        "num_fitted": len(trial.fitted.labels),
        "num_items": len(collection.labels),
        "num_queries": len(queries.labels),
        "seeds": arguments.seeds,
        "floats": floats,
        "by_method": measured,
    }
    record(name, figures)
    if not arguments.parts:
        _draw(figures, DOCS / f"{name.replace('_', '-')}.png")


class Judge:
    """Scores rankings of one trial's collection."""

    def __init__(self, trial: Trial):
        features, asking = trial.collection.features, trial.queries.features
        squares = np.einsum("nd,nd->n", features, features)
        self.euclidean: Distances = squares - 2 * asking @ features.T
        """Squared, and less the query's own length, which changes no order."""
        self._is_relevant = trial.queries.labels[:, None] == trial.collection.labels
        self._nearest = np.argsort(self.euclidean, axis=1, kind="stable")[:, :10]

    def score(self, distances: Distances) -> dict[str, float]:
        """mAP, precision and recall of ranking by these distances, ties by place."""
        with ThreadPoolExecutor(num_cores()) as pool:
            scores = np.array(
                list(pool.map(self._score, distances, self._is_relevant, self._nearest))
            )
        names = (
            "mAP",
            *(f"precision@{k}" for k in PRECISION_AT),
            *(f"recall10@{k}" for k in RECALL_AT),
        )
        return dict(zip(names, scores.mean(axis=0).tolist(), strict=True))

    @staticmethod
    def _score(
        distances: Distances, is_relevant: npt.NDArray[np.bool_], nearest: npt.NDArray[np.int64]
    ) -> list[float]:
        """Of one query: average precision, precisions and recalls."""
        ranking = np.argsort(distances, kind="stable")
        hits = is_relevant[ranking]
        ranks = np.flatnonzero(hits) + 1
        return [
            float(np.mean(np.arange(1, len(ranks) + 1) / ranks)),
            *(float(np.mean(hits[:k])) for k in PRECISION_AT),
            *(float(np.mean(np.isin(nearest, ranking[:k]))) for k in RECALL_AT),
        ]


def _methods(trial: Trial) -> Iterator[tuple[str, Method]]:
    yield "autoencoder", _autoencoder(trial, "features", {})
    yield "autoencoder, pixels", _autoencoder(trial, "pixels", {})
    for name, scaled in (("", lambda vectors: vectors), (LENGTH_1, unit)):
        fitted, collection, queries = (
            scaled(images.features) for images in (trial.fitted, trial.collection, trial.queries)
        )
        mean, components = _principal_components(fitted)
        turned = [
            _projected(vectors, mean, components) for vectors in (fitted, collection, queries)
        ]
        yield f"ITQ{name}", _itq(*turned)
        yield f"ITQ, its rotation alone{name}", _itq_rotation(*turned)
        yield f"PCA sign{name}", _pca_sign(*turned)
        yield f"LSH{name}", _lsh(fitted, collection, queries)
        yield f"product quantisation{name}", _product_quantisation(fitted, collection, queries)


def _parts(trial: Trial) -> dict[str, Method]:
    return {name: _autoencoder(trial, "features", changed) for name, changed in PARTS.items()}


def _autoencoder(trial: Trial, kind: str, changed: dict[str, Any]) -> Method:
    def distances(num_bits: int, seed: int) -> Distances:
        encoder = fit(
            getattr(trial.fitted, kind), Settings(num_bits=num_bits, seed=seed, **changed)
        )
        return _hamming(
            *(encoder.encode(getattr(images, kind)) for images in (trial.queries, trial.collection))
        )

    return distances


def _itq(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    def distances(num_bits: int, seed: int) -> Distances:
        transform = _faiss.ITQTransform(fitted.shape[1], num_bits, True)
        transform.max_train_per_dim = len(
            fitted
        )  # all of them: its own limit costs it several points
        transform.itq.seed = seed + 1
        transform.train(fitted)
        return _hamming(*(_packed(transform.apply(vectors)) for vectors in (queries, collection)))

    return distances


def _itq_rotation(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    """As in its paper (Gong and Lazebnik 2011): FAISS's transform above also brings what it has centred to length 1."""

    def distances(num_bits: int, seed: int) -> Distances:
        rotation = _faiss.ITQMatrix(num_bits)
        rotation.seed = seed + 1
        rotation.train(np.ascontiguousarray(fitted[:, :num_bits]))
        return _hamming(
            *(
                _packed(rotation.apply(np.ascontiguousarray(vectors[:, :num_bits])))
                for vectors in (queries, collection)
            )
        )

    return distances


def _pca_sign(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    return lambda num_bits, seed: _hamming(
        *(_packed(vectors[:, :num_bits]) for vectors in (queries, collection))
    )


def _lsh(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    """Random hyperplanes, at the median of each projection."""

    def distances(num_bits: int, seed: int) -> Distances:
        rotation = _faiss.RandomRotationMatrix(fitted.shape[1], num_bits)
        rotation.init(seed + 1)
        index = _faiss.IndexPreTransform(rotation, _faiss.IndexLSH(num_bits, num_bits, False, True))
        index.train(fitted)
        return _hamming(*(index.sa_encode(vectors) for vectors in (queries, collection)))

    return distances


def _product_quantisation(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    """Distances of exact queries to quantised items, at the same bytes an item."""

    def distances(num_bits: int, seed: int) -> Distances:
        quantizer = _faiss.ProductQuantizer(fitted.shape[1], num_bits // 8, 8)
        quantizer.cp.seed = seed + 1
        quantizer.train(fitted)
        decoded = quantizer.decode(quantizer.compute_codes(collection))
        found: Distances = np.einsum("nd,nd->n", decoded, decoded) - 2 * queries @ decoded.T
        return found

    return distances


def _principal_components(vectors: Floats) -> tuple[Floats, Floats]:
    """The mean (D,) and the first components (D, n). By NumPy: FAISS's own take minutes for 4096 dimensions."""
    mean: Floats = vectors.mean(axis=0, dtype=np.float32)
    centred = vectors - mean
    _, components = np.linalg.eigh(centred.T @ centred)
    first = components[:, ::-1][:, : min(MOST_COMPONENTS, len(vectors) - 1)]
    return mean, np.ascontiguousarray(first, np.float32)


def _projected(vectors: Floats, mean: Floats, components: Floats) -> Floats:
    projected: Floats = np.asarray((vectors - mean) @ components, np.float32)
    return projected


def _packed(values: Floats) -> Codes:
    return np.packbits(values > 0, axis=1, bitorder="little")


def _hamming(queries: Codes, collection: Codes) -> Distances:
    distances = np.empty((len(queries), len(collection)), np.int32)
    queries, collection = np.ascontiguousarray(queries), np.ascontiguousarray(collection)
    arrays = faiss.swig_ptr(queries), faiss.swig_ptr(collection)
    _faiss.hammings(
        *arrays, len(queries), len(collection), queries.shape[1], faiss.swig_ptr(distances)
    )
    return distances.astype(np.uint16)


def _measured(
    name: str, method: Method, judge: Judge, lengths: list[int], num_seeds: int
) -> dict[str, Any]:
    """By number of bits, each figure's mean and, of several seeds, standard deviation."""
    found = {}
    for num_bits in lengths:
        started = time.perf_counter()
        scores = [
            judge.score(method(num_bits, seed))
            for seed in range(1 if name.startswith("PCA") else num_seeds)
        ]
        spread = {
            key: stdev(score[key] for score in scores) if len(scores) > 1 else 0.0
            for key in scores[0]
        }
        found[str(num_bits)] = {
            key: [round(mean(score[key] for score in scores), 4), round(spread[key], 4)]
            for key in scores[0]
        }
        seconds = (time.perf_counter() - started) / len(scores)
        print(
            f"{name:>30} {num_bits:>4} bits  mAP {found[str(num_bits)]['mAP']}  {seconds:.1f} s a seed",
            flush=True,
        )
    return found


def _by_length(found: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(found.items(), key=lambda entry: int(entry[0])))


def _images(model: Path, data: str, cache: Path | None) -> Images:
    """Embeds images, or finds them in the cache, by the model and the data's name."""
    file = (
        cache / f"{read_card(model).id[:12]}-{data.strip('/').replace('/', '-')}.npz"
        if cache
        else None
    )
    if file and file.is_file():
        with np.load(file) as arrays:
            return Images(arrays["features"], arrays["pixels"], arrays["labels"])
    examples, embedder = open_dataset(data).part("all"), Embedder(model, num_threads=1)
    names = sorted({str(example.label) for example in examples})

    def embed(batch: list[Example]) -> tuple[Floats, Floats]:
        squares = [read_square(example.source, embedder.card.image_size) for example in batch]
        small = [
            np.asarray(Image.fromarray(square).resize((PIXELS_PX, PIXELS_PX), Image.Resampling.BOX))
            for square in squares
        ]
        return embedder.embed(np.stack(squares)).features, np.stack(small).reshape(
            len(small), -1
        ).astype(np.float32)

    batches = [list(examples[start : start + BATCH]) for start in range(0, len(examples), BATCH)]
    with ThreadPoolExecutor(num_cores()) as pool:
        features, pixels = zip(*map_ahead(pool, embed, batches, ahead=2 * num_cores()), strict=True)
    labels = np.array([names.index(str(example.label)) for example in examples])
    images = Images(np.concatenate(features), np.concatenate(pixels), labels)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, features=images.features, pixels=images.pixels, labels=images.labels)
    return images


def _draw(figures: dict[str, Any], file: Path) -> None:
    """mAP against bits, a line a method, with bars of two standard deviations, whole and from a little below the floats' on."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    floats = {name: figures["floats"][name]["mAP"] for name in ("euclidean", "cosine")}
    figure, (whole, near) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    colours: dict[str, str] = {}
    for name, found in figures["by_method"].items():
        lengths = [int(num_bits) for num_bits in found]
        means, spreads = zip(*(found[str(num_bits)]["mAP"] for num_bits in lengths), strict=True)
        is_ours = name == "autoencoder"
        colour = (
            "black"
            if is_ours
            else colours.setdefault(name.removesuffix(LENGTH_1), f"C{len(colours)}")
        )
        for axes in (whole, near):
            axes.errorbar(
                lengths,
                means,
                yerr=[2 * spread for spread in spreads],
                label=name if axes is whole else None,
                marker="o",
                color=colour,
                markersize=6 if is_ours else 3,
                linewidth=2.5 if is_ours else 1,
                linestyle="--" if LENGTH_1 in name else "-",
                capsize=2,
            )
    for axes in (whole, near):
        for (name, level), style in zip(floats.items(), (":", "-."), strict=True):
            axes.axhline(
                level,
                color="0.5",
                linestyle=style,
                linewidth=1,
                label=f"the floats, {name}" if axes is whole else None,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(num_bits) for num_bits in lengths])
        axes.set(xlabel="bits an image", ylabel="mAP by label")
        axes.grid(alpha=0.3)
    near.set(ylim=(min(floats.values()) - 0.02, None), title="the same, nearer")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
