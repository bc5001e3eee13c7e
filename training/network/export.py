"""From a network in memory to the files of a model directory, and back."""

import logging
import platform
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import load_file, save

from training.files import file_sha256, replacing, write_atomically
from training.network.alexnet import AlexNet, Architecture
from training.network.model import (
    CARD_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelCard,
    ModelError,
    check_file,
    read_card,
    write_card,
)


def save_model(
    network: AlexNet,
    directory: Path,
    *,
    class_names: tuple[str, ...],
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> ModelCard:
    """Writes a whole model directory; model.json comes last."""
    versions = versions_on(
        next(network.parameters()).device
    )  # asked before write_onnx takes the network to the CPU
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    write_atomically(directory / WEIGHTS_FILE, save(state))
    model_id = file_sha256(directory / WEIGHTS_FILE)
    write_onnx(network, directory / ONNX_FILE, model_id)
    card = ModelCard(
        id=model_id,
        onnx_sha256=file_sha256(directory / ONNX_FILE),
        architecture=asdict(network.architecture),
        class_names=class_names,
        image_size=network.architecture.image_size,
        recipe=recipe,
        data=data,
        metrics=metrics,
        versions=versions,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_card(card, directory)
    return card


def versions_on(device: torch.device) -> dict[str, str]:
    """Of Python and of those packages that a model depends on and are installed; of CUDA where `device` is a GPU."""
    found = {"python": platform.python_version()}
    for name in ("lookalike", "torch", "onnx", "numpy", "pillow"):
        with suppress(PackageNotFoundError):  # a checkout runs without having been installed
            found[name] = version(name)
    if device.type == "cuda" and torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def load_network(directory: Path, device: torch.device | str = "cpu") -> tuple[AlexNet, ModelCard]:
    """The network of a model directory, in evaluation mode; raises ModelError."""
    card = read_card(directory)
    weights = load_file(check_file(directory, WEIGHTS_FILE, card.id))
    try:
        network = AlexNet(Architecture(**card.architecture))
        network.load_state_dict(weights)
    except (TypeError, KeyError, RuntimeError) as error:  # model.json is not of these weights
        raise ModelError(
            f"{directory / CARD_FILE} describes another network than {WEIGHTS_FILE} holds; restore it from a copy, or train again"
        ) from error
    return network.eval().to(device), card


def export_model(directory: Path) -> Path:
    """Writes model.onnx again from the weights, names its checksum in model.json, and returns its path; raises ModelError."""
    network, card = load_network(directory)
    file = directory / ONNX_FILE
    write_onnx(network, file, card.id)
    write_card(replace(card, onnx_sha256=file_sha256(file)), directory)
    return file


def write_onnx(network: AlexNet, file: Path, model_id: str) -> None:
    """Writes the network as ONNX: `images` uint8 (batch, S, S, 3) -> `logits` (batch, C), `features` (batch, 4096), float32."""
    size = network.architecture.image_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter's own deprecations; what it writes is compared with torch in the tests
        program = torch.onnx.export(
            network.eval().cpu(),
            (example,),
            input_names=["images"],
            output_names=["logits", "features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    exporter_log.setLevel(level)
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"model_id": model_id})
    with replacing(file) as temporary:
        onnx.save(proto, temporary)
