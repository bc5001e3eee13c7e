"""A model directory: `weights.safetensors`, `model.onnx` and the card `model.json`.

The card is written last. A directory that has a card is a complete model. The SHA-256 of the
weights is the *model id*. The metadata of the ONNX file contains the model id, so a mix of files
from different models is noticed. This module does not import torch.
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
NUM_FEATURES = 4096
IMAGENET, FROM_SCRATCH = "imagenet", "none"
"""The words for torchvision's ImageNet weights and for random weights, as values of --init."""


class ModelError(UserError):
    """A model directory is missing, unfinished or damaged, or its format cannot be read."""


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
        return ModelCard(**{**content, "class_names": tuple(content["class_names"])})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(
            f"{file} is damaged ({error}); restore it from a copy, or train again"
        ) from error


def write_card(card: ModelCard, directory: Path) -> None:
    """Write model.json atomically. After this, the directory is a complete model."""
    write_atomically(directory / CARD_FILE, json.dumps(asdict(card), indent=2).encode() + b"\n")


def check_file(directory: Path, name: str, sha256: str) -> Path:
    """Return the path of a model's file after checking its SHA-256; raises ModelError.

    `sha256` comes from the card: `card.id` for the weights, `card.onnx_sha256` for the ONNX file.
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
