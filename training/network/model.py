"""A model directory: `weights.safetensors`, `model.onnx` and the card `model.json`.

The card is written last. A directory that has a card is a complete model. The SHA-256 of the
weights is the *model id*. The metadata of the ONNX file contains the model id, so a mix of files
from different models is noticed. A model can also have `model.int8.onnx`, the network in 8 bits.
The card then says how well its answers agree with those of `model.onnx`. This module does not
import torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.files import file_sha256, write_atomically

FORMAT_VERSION = 1
CARD_FILE, WEIGHTS_FILE, ONNX_FILE = "model.json", "weights.safetensors", "model.onnx"
INT8_FILE = "model.int8.onnx"
NUM_FEATURES = 4096
IMAGENET, FROM_SCRATCH = "imagenet", "none"
"""The words for torchvision's ImageNet weights and for random weights, as values of --init."""

# Conditions for the use of model.int8.onnx with the precision `auto`.
MIN_TOP1 = 0.99
MIN_NEAREST10 = 0.985
MAX_ACCURACY_LOSS = 0.002
MIN_COMPARED = 50
"""Minimum number of images that the networks were compared on. Fewer images say too little about a
share of 99 %."""
MIN_INDEXED = 100
"""Minimum number of images among which the 10 nearest were searched."""


class ModelError(UserError):
    """A model directory is missing, unfinished or damaged, or its format cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well the answers of the network in int8 agree with those in float32.

    The images are neither those of the calibration nor those that chose the layers.
    """

    top1: float
    """Share of the images with the same most probable class, 0 to 1."""
    nearest10: float
    """Share of the 10 nearest images of an index in float32 that a query in int8 also finds, 0 to
    1."""
    cosine: float
    """Mean cosine of an image's features in int8 and in float32."""
    num_images: int
    num_indexed: int
    """Number of images among which the 10 nearest were searched."""
    accuracy_float32: float | None = None
    """Top-1 of the network in float32 on these images. None if they have no label that the network
    knows."""
    accuracy_int8: float | None = None

    @property
    def is_sufficient(self) -> bool:
        """Whether the precision `auto` may use int8.

        A loss of accuracy by a single image is always allowed, because a smaller one cannot be
        measured.
        """
        before, after = self.accuracy_float32, self.accuracy_int8
        loss = 0.0 if before is None or after is None else before - after
        max_loss = max(MAX_ACCURACY_LOSS, 1 / max(self.num_images, 1))
        return (
            self.reaches_shares
            and loss <= max_loss + 1e-9
            and self.num_images >= MIN_COMPARED
            and self.num_indexed >= MIN_INDEXED
        )

    @property
    def reaches_shares(self) -> bool:
        """Whether top-1 and the 10 nearest agree as often as they must."""
        return self.top1 >= MIN_TOP1 and self.nearest10 >= MIN_NEAREST10


@dataclass(frozen=True, kw_only=True)
class Int8Card:
    """The facts about model.int8.onnx in model.json."""

    sha256: str
    float32_layers: tuple[str, ...]
    """The layers that stay in float32, such as `conv1`."""
    calibration: Mapping[str, Any]
    """The name of the images, how they were used, and how many there were."""
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The content of model.json."""

    id: str
    """SHA-256 of weights.safetensors, hexadecimal."""
    onnx_sha256: str
    architecture: Mapping[str, Any]
    class_names: tuple[str, ...]
    image_size: int
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    """The name of the training data, and its numbers of training, held-out and skipped images.
    The device and the number of processes of the training are stored here too."""
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    created_at: str
    int8: Int8Card | None = None
    """None if the model has no model.int8.onnx."""
    format_version: int = field(default=FORMAT_VERSION)


def read_card(directory: Path) -> ModelCard:
    """Read model.json; raises ModelError."""
    file = directory / CARD_FILE
    if not file.is_file():
        problem = (
            f"has no {CARD_FILE}: it is not a model, or its training has not finished"
            if directory.exists()
            else "does not exist"
        )
        raise ModelError(
            f"{directory} {problem}; to make one, run: lookalike train DATA --out {directory}"
        )
    try:
        content = json.loads(file.read_text("utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{file} has format {version}, but this program reads {FORMAT_VERSION}; "
                "use the release that wrote it, or train again"
            )
        names, int8 = tuple(content["class_names"]), _parse_int8(content.get("int8"))
        return ModelCard(**{**content, "class_names": names, "int8": int8})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(
            f"{file} is damaged ({error}); restore it from a copy, or train again"
        ) from error


def _parse_int8(content: Mapping[str, Any] | None) -> Int8Card | None:
    if content is None:
        return None
    agreement = Agreement(**content["agreement"])
    layers = tuple(content["float32_layers"])
    return Int8Card(**{**content, "float32_layers": layers, "agreement": agreement})


def write_card(card: ModelCard, directory: Path) -> None:
    """Write model.json atomically. After this, the directory is a complete model."""
    content = asdict(card)
    if card.int8 is None:
        del content["int8"]  # as in the cards of earlier programs
    write_atomically(directory / CARD_FILE, json.dumps(content, indent=2).encode() + b"\n")


def check_file(directory: Path, name: str, sha256: str) -> Path:
    """Return the path of a model's file after checking its SHA-256; raises ModelError.

    `sha256` comes from the card: `card.id` for the weights, `card.onnx_sha256` for model.onnx, and
    `card.int8.sha256` for model.int8.onnx.
    """
    file = directory / name
    if not file.is_file():
        raise ModelError(f"{file} is missing; restore it from a copy, or train again")
    if (actual := file_sha256(file)) != sha256:
        raise ModelError(
            f"{file} should have SHA-256 {sha256[:12]} but has {actual[:12]}: "
            "it is damaged or belongs to another model; restore it from a copy, or train again"
        )
    return file
