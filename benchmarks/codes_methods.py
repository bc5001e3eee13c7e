"""The methods of making codes that benchmarks/codes.py compares.

FAISS computes LSH, ITQ and product quantisation. NumPy computes PCA. Each of these methods is used
twice: with the original features, and with features that are scaled to length 1.
"""

from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np

from benchmarks.codes_judge import Distances, Trial
from indexer.array_types import Codes, Floats
from indexer.learned.autoencoder import AutoencoderSettings
from indexer.learned.autoencoder_fitting import fit
from indexer.metrics import unit

_faiss: Any = faiss  # the type stubs of FAISS are incomplete
LENGTH_1 = ", length 1"
MAX_COMPONENTS = 512
PARTS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "no neighbourhoods": {"neighbour_share": 0.0},
    "no detail bits": {"detail_share": 0.0},
    "no noise": {"noise": 0.0},
    "no reconstruction": {"reconstruction_weight": 0.0},
    "reconstruction only": {"similarity_weight": 0.0},
    "straight-through line, not tanh": {"sharpness": 0.0},
}
"""Changed settings of the autoencoder. Each entry after the first leaves out one part."""

Method = Callable[[int, int], Distances]
"""Computes the distances between queries and collection. The arguments are num_bits and a seed."""


def all_methods(trial: Trial) -> Iterator[tuple[str, Method]]:
    """Yield all methods, and their names in the record."""
    yield "autoencoder", _autoencoder(trial, "features", {})
    yield "autoencoder, pixels", _autoencoder(trial, "pixels", {})
    parts = (trial.fitted, trial.collection, trial.queries)
    for suffix, scale in (("", np.asarray), (LENGTH_1, unit)):
        scaled = [scale(images.features) for images in parts]
        mean, components = _principal_components(scaled[0])
        projected = [_projected(vectors, mean, components) for vectors in scaled]
        yield f"ITQ{suffix}", _itq(*projected)
        yield f"ITQ, its rotation alone{suffix}", _itq_rotation(*projected)
        yield f"PCA sign{suffix}", _pca_sign(*projected)
        yield f"LSH{suffix}", _lsh(*scaled)
        yield f"product quantisation{suffix}", _product_quantisation(*scaled)


def without_parts(trial: Trial) -> Iterator[tuple[str, Method]]:
    """Yield the complete autoencoder, and then the autoencoder without each of its parts."""
    for name, changes in PARTS.items():
        yield name, _autoencoder(trial, "features", changes)


def packed(values: Floats) -> Codes:
    """The signs of values (n, bits) as codes (n, bits / 8)."""
    return np.packbits(values > 0, axis=1, bitorder="little")


def hamming(queries: Codes, collection: Codes) -> Distances:
    """The Hamming distances (Q, N) between codes (Q, bytes) and codes (N, bytes)."""
    distances = np.empty((len(queries), len(collection)), np.int32)
    queries, collection = np.ascontiguousarray(queries), np.ascontiguousarray(collection)
    pointers = [faiss.swig_ptr(array) for array in (queries, collection, distances)]
    sizes = len(queries), len(collection), queries.shape[1]
    _faiss.hammings(*pointers[:2], *sizes, pointers[2])
    return distances.astype(np.uint16)


def _autoencoder(trial: Trial, kind: str, changes: dict[str, Any]) -> Method:
    def distances(num_bits: int, seed: int) -> Distances:
        settings = AutoencoderSettings(num_bits=num_bits, seed=seed, **changes)
        encoder = fit(getattr(trial.fitted, kind), settings)
        queries = encoder.encode(getattr(trial.queries, kind))
        return hamming(queries, encoder.encode(getattr(trial.collection, kind)))

    return distances


def _itq(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    def distances(num_bits: int, seed: int) -> Distances:
        transform = _faiss.ITQTransform(fitted.shape[1], num_bits, True)
        # Train on all features. With FAISS's default limit, mAP is several points lower.
        transform.max_train_per_dim = len(fitted)
        transform.itq.seed = seed + 1
        transform.train(fitted)
        return hamming(packed(transform.apply(queries)), packed(transform.apply(collection)))

    return distances


def _itq_rotation(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    """ITQ as published (Gong and Lazebnik 2011).

    `_itq` uses FAISS's ITQTransform, which also scales the centred vectors to length 1.
    """

    def distances(num_bits: int, seed: int) -> Distances:
        rotation = _faiss.ITQMatrix(num_bits)
        rotation.seed = seed + 1
        first, items, asked = (
            np.ascontiguousarray(vectors[:, :num_bits]) for vectors in (fitted, collection, queries)
        )
        rotation.train(first)
        return hamming(packed(rotation.apply(asked)), packed(rotation.apply(items)))

    return distances


def _pca_sign(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    return lambda num_bits, seed: hamming(
        packed(queries[:, :num_bits]), packed(collection[:, :num_bits])
    )


def _lsh(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    """Random hyperplanes. The threshold of each bit is the median of the projections."""

    def distances(num_bits: int, seed: int) -> Distances:
        rotation = _faiss.RandomRotationMatrix(fitted.shape[1], num_bits)
        rotation.init(seed + 1)
        index = _faiss.IndexPreTransform(rotation, _faiss.IndexLSH(num_bits, num_bits, False, True))
        index.train(fitted)
        return hamming(index.sa_encode(queries), index.sa_encode(collection))

    return distances


def _product_quantisation(fitted: Floats, collection: Floats, queries: Floats) -> Method:
    """Product quantisation of the items, with the same number of bytes per item.

    Queries are not quantised.
    """

    def distances(num_bits: int, seed: int) -> Distances:
        quantizer = _faiss.ProductQuantizer(fitted.shape[1], num_bits // 8, 8)
        quantizer.cp.seed = seed + 1
        quantizer.train(fitted)
        decoded = quantizer.decode(quantizer.compute_codes(collection))
        squared: Distances = np.einsum("nd,nd->n", decoded, decoded) - 2 * queries @ decoded.T
        return squared

    return distances


def _principal_components(vectors: Floats) -> tuple[Floats, Floats]:
    """The mean (D,) and the first components (D, n) of vectors (N, D).

    NumPy computes them, because FAISS needs minutes for 4096 dimensions.
    """
    mean: Floats = vectors.mean(axis=0, dtype=np.float32)
    centred = vectors - mean
    _, components = np.linalg.eigh(centred.T @ centred)
    first = components[:, ::-1][:, : min(MAX_COMPONENTS, len(vectors) - 1)]
    return mean, np.ascontiguousarray(first, np.float32)


def _projected(vectors: Floats, mean: Floats, components: Floats) -> Floats:
    projected: Floats = np.asarray((vectors - mean) @ components, np.float32)
    return projected
