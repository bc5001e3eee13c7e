"""Compare the features of the device with those of the CPU, and measure images per second."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.job import Job, need, rate
from benchmarks.made_up import make_model
from indexer.array_types import Floats
from indexer.embedder import Embedder
from training.data.images import Pixels
from training.network.export import load_network

MAX_DIFFERENCE = 1e-3
"""The promised bound for the largest difference of a feature, as a share of the largest feature."""
NUM_COMPARED = 16


def run(job: Job) -> None:
    job.measure("same_features", lambda: _compare(job))
    for batch_size in job.size((1, 4), (1, 8, 32, 128, 512)):
        job.measure(f"batches_of_{batch_size}", lambda: _speed(job, batch_size))  # noqa: B023


def model_directory(job: Job) -> Path:
    """A model directory with random weights, made once."""
    need("onnx", "onnxscript")
    directory = job.workdir / "model"
    if not (directory / "model.json").exists():
        make_model(directory, num_classes=1000, normalization="batch", image_size=_image_size(job))
    return directory


def _compare(job: Job) -> Mapping[str, Any]:
    """Compare the features with those of a network that computes in float64 on the CPU."""
    directory, squares = model_directory(job), _squares(job, NUM_COMPARED)
    features = _embedder(job).embed(squares).features
    network, _ = load_network(directory)
    with torch.inference_mode():
        exact = network.double()(torch.from_numpy(squares))[1].numpy()
    difference = float(np.abs(features - exact).max() / np.abs(exact).max())
    figures: dict[str, Any] = {
        "largest_difference": difference,
        "promised": MAX_DIFFERENCE,
        "smallest_cosine": float(_cosines(features, exact).min()),
    }
    if difference >= MAX_DIFFERENCE:
        figures["error"] = "the features differ by more than promised"
    return figures


def _speed(job: Job, batch_size: int) -> Mapping[str, Any]:
    """Images per second of the embedder, with the copies to the device and back."""
    embedder, squares = _embedder(job), _squares(job, batch_size)
    seconds = job.size(0.2, 3.0)
    return {"images_per_s": rate(job, lambda: embedder.embed(squares), batch_size, seconds=seconds)}


_embedders = cache(Embedder)


def _embedder(job: Job) -> Embedder:
    return _embedders(model_directory(job), device="gpu" if job.is_gpu else "cpu")


def _image_size(job: Job) -> int:
    return job.size(67, 224)


def _squares(job: Job, count: int) -> Pixels:
    shape = (count, _image_size(job), _image_size(job), 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _cosines(these: Floats, others: Floats) -> Floats:
    lengths = np.linalg.norm(these, axis=1) * np.linalg.norm(others, axis=1)
    cosines: Floats = (these * others).sum(1) / lengths
    return cosines
