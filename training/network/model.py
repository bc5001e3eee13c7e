"""A model directory: `weights.safetensors`, `model.onnx`, and `model.json`, which is written last and makes it whole. No torch here.

The SHA-256 of the weights is the *model id*; the ONNX file carries the id in its metadata, so a mixture is noticed.
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


class ModelError(UserError):
    """A model directory that is missing, unfinished, damaged or of another format."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What model.json says."""

    id: str
    """SHA-256 of weights.safetensors, hexadecimal."""
    onnx_sha256: str
    architecture: Mapping[str, Any]
    class_names: tuple[str, ...]
    image_size: int
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    """What it was trained on: name, number of images, how many were held out or skipped; the device and the number of processes."""
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    created_at: str
    format_version: int = field(default=FORMAT_VERSION)


def read_card(directory: Path) -> ModelCard:
    """Reads model.json; raises ModelError."""
    file = directory / CARD_FILE
    if not file.is_file():
        what = (
            "does not exist"
            if not directory.exists()
            else f"has no {CARD_FILE}: it is no model, or its training has not finished"
        )
        raise ModelError(
            f"{directory} {what}; make one with: lookalike train DATA --out {directory}"
        )
    try:
        content = json.loads(file.read_text("utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{file} has format {version}, this program reads {FORMAT_VERSION}; use the release that wrote it, or train again"
            )
        return ModelCard(**{**content, "class_names": tuple(content["class_names"])})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(
            f"{file} is damaged ({error}); restore it from a copy, or train again"
        ) from error


def write_card(card: ModelCard, directory: Path) -> None:
    """Writes model.json, atomically: from here on the directory is a whole model."""
    write_atomically(directory / CARD_FILE, json.dumps(asdict(card), indent=2).encode() + b"\n")


def check_file(directory: Path, name: str, sha256: str) -> Path:
    """The path of a model's file, once its bytes are the ones model.json names; raises ModelError."""
    file = directory / name
    if not file.is_file():
        raise ModelError(f"{file} is missing; restore it from a copy, or train again")
    if (found := file_sha256(file)) != sha256:
        raise ModelError(
            f"{file} should have SHA-256 {sha256[:12]} but has {found[:12]}: it is damaged or of another model; restore it"
        )
    return file
