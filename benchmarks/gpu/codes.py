"""Learn binary codes on the device and on the CPU: the time, and the neighbours that they find."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any, Literal

import numpy as np

from benchmarks.gpu.job import Job, need_gpu
from benchmarks.made_up import made_up_blocks
from indexer.array_types import Floats
from indexer.learned.autoencoder import AutoencoderSettings
from indexer.learned.autoencoder_fitting import fit

K = 10
NUM_CANDIDATES = 100
NUM_QUERIES = 100
NUM_BITS = 128


def run(job: Job) -> None:
    for device in ("cpu", "gpu"):
        job.measure(device, lambda: _learn(job, device))  # noqa: B023


def _learn(job: Job, device: Literal["cpu", "gpu"]) -> Mapping[str, Any]:
    """Fit an encoder. Recall counts the 10 nearest features among the 100 nearest codes."""
    if device == "gpu":
        need_gpu(job)
    num_items = job.size(600, 20_000)
    features = np.concatenate(list(made_up_blocks(num_items, seed=0, num_items=num_items)))
    queries = next(made_up_blocks(NUM_QUERIES, seed=1, num_items=num_items))
    settings = AutoencoderSettings(num_bits=NUM_BITS, num_steps=job.size(30, 240))
    if job.is_gpu:
        warm_up = AutoencoderSettings(num_bits=NUM_BITS, num_steps=20)
        fit(features[:500], warm_up, device=device)  # loads CUDA's libraries
    started_s = perf_counter()
    encoder = fit(features, settings, device=device)
    fit_s = perf_counter() - started_s
    bits, query_bits = (
        np.unpackbits(encoder.encode(block), axis=1).astype(np.float32)
        for block in (features, queries)
    )
    return {
        "num_items": num_items,
        "num_bits": NUM_BITS,
        "fit_s": round(fit_s, 2),
        "loss": encoder.facts.loss[-1],
        "recall_10_at_100": round(
            _recall(_squared_distances(query_bits, bits), _squared_distances(queries, features)), 4
        ),
    }


def _squared_distances(queries: Floats, vectors: Floats) -> Floats:
    """Squared Euclidean distances (Q, n), without the length of the query."""
    distances: Floats = (vectors * vectors).sum(1) - 2 * queries @ vectors.T
    return distances


def _recall(by_code: Floats, by_feature: Floats) -> float:
    """The share of the K nearest by feature that are among the NUM_CANDIDATES nearest by code."""
    nearest = np.argsort(by_feature, axis=1, kind="stable")[:, :K]
    candidates = np.argsort(by_code, axis=1, kind="stable")[:, :NUM_CANDIDATES]
    shares = [
        np.isin(some, others).mean() for some, others in zip(nearest, candidates, strict=True)
    ]
    return float(np.mean(shares))
