"""The network that the demo starts from: ImageNet weights, another model, or none."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.data.datasets import open_dataset
from training.errors import UserError
from training.files import write_atomically
from training.network.model import CARD_FILE, FROM_SCRATCH, IMAGENET, read_card
from training.progress import console

START_FILE = "demo.json"
CHECKPOINT_FILE = "checkpoint.pt"
"""The name of a checkpoint in a model directory. The module that defines it imports torch."""


@dataclass(frozen=True)
class Start:
    """The data of a working directory, the network that it started from, and its settings."""

    data: str
    """The images: an absolute path, or the name of a data set."""
    init: str
    """`imagenet`, `none`, or the absolute path of a model directory or a weights file."""
    epochs: int | None = None
    image_size: int | None = None

    @property
    def is_trained(self) -> bool:
        """Whether the demo trains the network in any case. Otherwise, a short trial decides."""
        return self.init == FROM_SCRATCH or self.epochs is not None


def choose_start(
    data: str,
    workdir: Path,
    *,
    init: str | None = None,
    epochs: int | None = None,
    image_size: int | None = None,
) -> Start:
    """The start of a working directory. As soon as there is a network, later calls repeat it.

    Without `init`, the ImageNet weights are chosen if they are at hand or can be downloaded. Digits
    are trained from scratch, because they are not photographs. Raises UserError for data or a
    network that do not exist, and if the network was made from other data or with other settings.
    """
    name = data if data == "digits" else str(Path(data).absolute())
    if init not in (None, IMAGENET, FROM_SCRATCH):
        if not Path(init).exists():
            raise UserError(
                f"--init must be imagenet, none, a model directory or a weights file; got {init}, "
                "which does not exist"
            )
        init = str(Path(init).resolve())
    earlier = _read_start(workdir, name)
    if earlier is not None:
        asked = {"init": init, "epochs": epochs, "image_size": image_size}
        _check_same(workdir, earlier, name, asked)
        return earlier
    has_labels = any(example.label is not None for example in open_dataset(data).part("all"))
    start = Start(name, init or _best_init(name), epochs, image_size)
    _check(start, has_labels=has_labels)
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / START_FILE, json.dumps(asdict(start)).encode())
    return start


def _best_init(data: str) -> str:
    if data == "digits":
        return FROM_SCRATCH
    from training.network.pretrained import (
        are_imagenet_weights_available,
        hint_at_scratch,
        imagenet_weights,
    )

    with hint_at_scratch(IMAGENET):
        if os.environ.get("LOOKALIKE_WEIGHTS_URL"):
            imagenet_weights()  # a source that the user names must work
            return IMAGENET
        if are_imagenet_weights_available():
            return IMAGENET
    console.print(
        "Training from scratch, because the ImageNet weights cannot be downloaded here. With them, "
        "no training is needed, and a few photographs are enough. To use them, set "
        "LOOKALIKE_WEIGHTS_URL to a mirror or to the file, and pass another --workdir"
    )
    return FROM_SCRATCH


def _check(start: Start, *, has_labels: bool) -> None:
    if start.image_size is not None and start.init != FROM_SCRATCH:
        raise UserError(
            f"--image-size has no effect with --init {start.init}, whose network has a size of its "
            "own; leave it out, or pass --init none too"
        )
    if start.is_trained and not has_labels:
        raise UserError(
            f"{start.data} has no labels, so no network can be trained on it; pass a trained "
            "network (--init imagenet, or --init MODEL) without --epochs, or sort the images into "
            "one folder per label"
        )


def _read_start(workdir: Path, data: str) -> Start | None:
    """The start of an earlier run that has a network, or the beginning of one; None without it."""
    file, model = workdir / START_FILE, workdir / "model"
    if not (model / CARD_FILE).exists() and not (model / CHECKPOINT_FILE).exists():
        return None
    if file.exists():
        try:
            return Start(**json.loads(file.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} is damaged; remove it, or pass another --workdir") from error
    # Earlier versions trained every network from scratch, and wrote no file.
    if (model / CARD_FILE).exists():
        data = str(read_card(model).data.get("name", data))
    return Start(data, FROM_SCRATCH)


def _check_same(workdir: Path, earlier: Start, data: str, asked: Mapping[str, Any]) -> None:
    """Raise UserError if finished steps would wrongly count as done."""
    remedy = "pass another --workdir, or remove that directory first"
    if earlier.data != data and Path(earlier.data).resolve() != Path(data).resolve():
        raise UserError(f"{workdir} was made from {earlier.data}, not {data}; {remedy}")
    for name, value in asked.items():
        before = getattr(earlier, name)
        if value is not None and value != before:
            option = f"--{name.replace('_', '-')}"
            made = f"without {option}" if before is None else f"with {option} {before}"
            raise UserError(f"{workdir} was made {made}, not with {option} {value}; {remedy}")
