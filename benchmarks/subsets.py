"""Train on a few images of each class, and keep the result for the next call of the benchmark."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from training.data.cache import cached_canvases
from training.data.datasets import class_names, open_dataset
from training.devices import best_device
from training.files import write_atomically
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate
from training.learning.last_layer import FirstWeights
from training.learning.plan import Plan, Split
from training.learning.recipe import Recipe, modern
from training.learning.trainer import train_network
from training.network.alexnet import Architecture
from training.parallel import num_cores

NUM_VALIDATED = 50
"""Number of held-out images that are scored after each epoch. All are scored at the end."""


def kept_or_measured(
    file: Path, measure: Callable[[], dict[str, Any]], *, is_over: bool
) -> dict[str, Any] | None:
    """The result in `file`, measured first if needed.

    Return None if another process measures it now, or if it is missing and the time `is_over`.
    """
    try:
        with FileLock(file.with_suffix(".lock"), blocking=False):
            if not file.exists():
                if is_over:
                    return None
                write_atomically(file, json.dumps(measure()).encode())
    except Timeout:
        return None
    return dict(json.loads(file.read_text()))


def result_file(workdir: Path, train: Split, recipe: Recipe, init: str = "") -> Path:
    """The file of a result. Its name depends on the images, on the recipe and on `init`.

    Only settings that differ from the recipe `modern` count, so a new setting whose default changes
    nothing keeps the results.
    """
    usual = modern().as_dict()
    settings = {name: value for name, value in recipe.as_dict().items() if value != usual[name]}
    digest = hashlib.sha256(json.dumps([init, settings]).encode())
    digest.update(train.canvases.tobytes())
    digest.update(train.targets.numpy().tobytes())
    return workdir / f"{digest.hexdigest()[:16]}.json"


def read_splits(
    data: str, image_size: int, workdir: Path, val: str | None = None
) -> tuple[Split, Split, tuple[str, ...]]:
    """Decode the training images and the held-out images of a data set; also its class names.

    With `val`, all images of `data` are training images, and those of `val` are held out.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    examples = open_dataset(data).part("all" if val else "train")
    names = class_names(examples)
    held_out = open_dataset(val or data).part("all" if val else "held-out")
    splits = []
    for source, part in ((data, examples), (val or data, held_out)):
        kind = "train" if part is examples else "held-out"
        file = workdir / f"{Path(data).parent.name}-{Path(data).name}-{kind}-{image_size}.u8"
        canvases = cached_canvases(source, part, image_size, file, num_threads=num_cores())
        targets = [names.index(str(example.label)) for example in canvases.examples]
        splits.append(Split(canvases.pixels, torch.tensor(targets)))
    return splits[0], splits[1], tuple(names)


def choose(split: Split, per_class: int) -> Split:
    """The same `per_class` random images of every class in every run."""
    random = np.random.default_rng(0)
    order = random.permutation(len(split.targets))
    targets = split.targets.numpy()[order]
    chosen = np.sort(
        np.concatenate([order[targets == target][:per_class] for target in np.unique(targets)])
    )
    return Split(np.ascontiguousarray(split.canvases[chosen]), split.targets[chosen])


def train_and_score(
    train: Split,
    held_out: Split,
    recipe: Recipe,
    architecture: Architecture,
    first: FirstWeights | None = None,
) -> dict[str, Any]:
    """Train with a recipe. Return top-1 on all held-out images, and the training time."""
    few = slice(0, None, max(1, len(held_out.targets) // NUM_VALIDATED))
    with TemporaryDirectory() as directory:
        plan = Plan(
            recipe=recipe,
            architecture=architecture,
            train=train,
            held_out=Split(held_out.canvases[few], held_out.targets[few]),
            directory=Path(directory),
            fingerprint="subset",
            initial=first.tensors if first else None,
            old_layers=first.old_layers if first else "none",
        )
        started_s = perf_counter()
        network = train_network(plan, Workers(device=best_device()), resume=False)
        training_s = perf_counter() - started_s
    scores = evaluate(network, held_out.canvases, held_out.targets)
    return {"top1": round(scores.top1, 4), "training_s": round(training_s)}
