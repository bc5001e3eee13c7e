"""Write a network to a model directory, and load it again."""

import logging
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
    INT8_FILE,
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
    """Write a complete model directory. This moves the network to the CPU.

    model.json is written last. Then the model.int8.onnx of an earlier model is removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    device = next(network.parameters()).device  # write_onnx moves the network to the CPU
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
        versions=installed_versions(device),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_card(card, directory)
    (directory / INT8_FILE).unlink(missing_ok=True)
    return card


def installed_versions(device: torch.device) -> dict[str, str]:
    """The versions of Python and of the installed packages that a model depends on.

    CUDA's version is included if `device` is a GPU.
    """
    versions = {"python": platform.python_version()}
    for name in ("lookalike", "torch", "onnx", "numpy", "pillow"):
        with suppress(PackageNotFoundError):  # Lookalike may run without being installed
            versions[name] = version(name)
    if device.type == "cuda" and torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return versions


def load_network(
    directory: Path, device: torch.device | str = "cpu", *, card: ModelCard | None = None
) -> tuple[AlexNet, ModelCard]:
    """Load the network of a model directory, in evaluation mode; raises ModelError.

    If the card has been read already, pass it as `card`. By default, it is read from model.json.
    """
    card = card or read_card(directory)
    weights = load_file(check_file(directory, WEIGHTS_FILE, card.id))
    try:
        network = AlexNet(Architecture(**card.architecture))
        network.load_state_dict(weights)
    except (TypeError, KeyError, RuntimeError) as error:  # the card belongs to other weights
        raise ModelError(
            f"{directory / CARD_FILE} does not describe the network in {WEIGHTS_FILE}; "
            "restore it from a copy, or train again"
        ) from error
    return network.eval().to(device), card


def export_model(directory: Path) -> Path:
    """Write model.onnx again from the weights; raises ModelError.

    The checksum of model.onnx in model.json is updated. Returns the path of model.onnx.
    """
    network, card = load_network(directory)
    file = directory / ONNX_FILE
    write_onnx(network, file, card.id)
    write_card(replace(card, onnx_sha256=file_sha256(file)), directory)
    return file


def write_onnx(network: AlexNet, file: Path, model_id: str) -> None:
    """Write an ONNX file. This moves the network to the CPU and sets it to evaluation mode.

    The input is `images` uint8 (batch, S, S, 3). The outputs are `logits` (batch, num_classes) and
    `features` (batch, 4096), both float32.
    """
    size = network.architecture.image_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with _quiet_exporter():
        program = torch.onnx.export(
            network.eval().cpu(),
            (example,),
            input_names=["images"],
            output_names=["logits", "features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"model_id": model_id})
    with replacing(file) as temporary:
        onnx.save(proto, temporary)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's own deprecation warnings in the `with` block.

    Tests compare the outputs of the exported network with those of the network in torch.
    """
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
