"""Compute features and logits from squares, with the network of a model directory.

The network runs in ONNX Runtime on the CPU, and in torch on a GPU. On the CPU, it computes in
float32 or in int8.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from indexer.array_types import Floats
from training.data.images import Pixels
from training.devices import Device, Precision, RequestedPrecision, resolve_device
from training.errors import UserError
from training.network.model import (
    INT8_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelCard,
    ModelError,
    check_file,
    read_card,
)
from training.network.onnx_session import open_session
from training.processor import has_int8_instructions

if TYPE_CHECKING:
    from training.network.alexnet import AlexNet


@dataclass(frozen=True)
class Embedding:
    """The output of the network for a batch. For a single image, there is no batch axis."""

    logits: Floats
    """(B, classes)"""
    features: Floats
    """(B, 4096)"""


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability for an image."""

    name: str
    index: int
    """The position of the class among the model's classes, or among the probe's labels."""
    probability: float
    """From 0 to 1."""


class Embedder:
    """The network of a model directory. Safe to use from several threads."""

    def __init__(
        self,
        model_directory: Path,
        *,
        card: ModelCard | None = None,
        device: Device = "cpu",
        num_threads: int | None = None,
        precision: RequestedPrecision = "float32",
    ):
        """Load the network; raises ModelError if the directory is not a complete model.

        If the model's card has been read already, pass it as `card`. The device `auto` is a GPU if
        torch can use one, otherwise the CPU. If the device is `cpu` or the machine has no NVIDIA
        driver, torch is not imported. `num_threads` is the number of CPU threads that the network
        uses; None means all cores. The precision `auto` is int8 on the CPU if that is faster and
        agrees with float32, see `resolve_precision`. The precision int8 needs the CPU: the device
        `auto` is then the CPU, and UserError is raised for `gpu`.
        """
        self.card = read_card(model_directory) if card is None else card
        if precision == "int8":
            if device == "gpu":
                raise UserError(
                    "int8 runs on the CPU only; pass --device cpu, or another precision"
                )
            device = "cpu"
        self.device: Literal["cpu", "gpu"] = resolve_device(device)
        self.precision: Precision = "float32"
        """The precision of the network."""
        if self.device == "cpu":
            self.precision = resolve_precision(model_directory, self.card, precision)
        self._forward: _Forward = (
            _TorchForward(model_directory, self.card)
            if self.device == "gpu"
            else _OnnxForward(model_directory, self.card, self.precision, num_threads)
        )
        self._open = partial(Embedder, model_directory, card=self.card, num_threads=num_threads)
        self._opening = Lock()
        self._others: dict[Precision, Embedder] = {}

    def embed(self, squares: Pixels) -> Embedding:
        """Run the network on squares (B, S, S, 3) uint8 RGB. S is the model's image size."""
        return Embedding(*self._forward(squares))

    def with_precision(self, precision: Precision) -> "Embedder":
        """The same model in another precision, on the CPU. It is loaded once; raises ModelError."""
        if precision == self.precision:
            return self
        with self._opening:
            if precision not in self._others:
                self._others[precision] = self._open(precision=precision)
            return self._others[precision]


def resolve_precision(
    model_directory: Path, card: ModelCard, precision: RequestedPrecision
) -> Precision:
    """Turn `auto` into the precision for a network on the CPU. Other precisions stay as they are.

    `auto` is int8 if the model has a network in int8, its answers agree with those in float32 as
    often as they must, and the processor has instructions for int8. For the precision int8, raises
    ModelError if the model has no network in int8.
    """
    has_file = card.int8 is not None and (model_directory / INT8_FILE).is_file()
    if precision == "int8" and not has_file:
        # An index's copy of a model has no weights, so the file cannot be made there.
        is_copy = not (model_directory / WEIGHTS_FILE).exists()
        model = "MODEL" if is_copy else model_directory
        remedy = f"to make it, run: lookalike export {model} --int8 DATA"
        if is_copy:
            remedy += "; then pass --model MODEL, or build the index again with this model"
        raise ModelError(f"{model_directory} has no {INT8_FILE}; {remedy}")
    if precision != "auto":
        return precision
    is_good = card.int8 is not None and card.int8.agreement.is_sufficient
    return "int8" if has_file and is_good and has_int8_instructions() else "float32"


def likeliest(logits: Floats, class_names: tuple[str, ...], k: int = 5) -> list[ClassScore]:
    """The `k` most probable classes of one image's logits (classes,), most probable first."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponentials / exponentials.sum()
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [
        ClassScore(class_names[index], int(index), float(probabilities[index])) for index in best
    ]


class _Forward(Protocol):
    """Computes logits (B, classes) and features (B, 4096) from squares (B, S, S, 3)."""

    def __call__(self, squares: Pixels) -> tuple[Floats, Floats]: ...


class _OnnxForward:
    def __init__(
        self, directory: Path, card: ModelCard, precision: Precision, num_threads: int | None
    ):
        name, sha256, option = ONNX_FILE, card.onnx_sha256, ""
        if precision == "int8":
            assert card.int8
            name, sha256, option = INT8_FILE, card.int8.sha256, " --int8 DATA"
        file = check_file(directory, name, sha256)
        self._session = open_session(file, num_threads=num_threads)
        model_id = self._session.get_modelmeta().custom_metadata_map.get("model_id")
        if model_id != card.id:
            raise ModelError(
                f"{file} belongs to model {str(model_id)[:12]} but model.json belongs to model "
                f"{card.id[:12]}; to write the file again, run: "
                f"lookalike export {directory}{option}"
            )

    def __call__(self, squares: Pixels) -> tuple[Floats, Floats]:
        logits, features = self._session.run(["logits", "features"], {"images": squares})
        return logits, features


class _TorchForward:
    def __init__(self, directory: Path, card: ModelCard):
        import torch

        from training.network.export import load_network

        self._torch = torch
        network, _ = load_network(directory, "cuda", card=card)
        self._network: AlexNet = network.to(memory_format=torch.channels_last)

    def __call__(self, squares: Pixels) -> tuple[Floats, Floats]:
        torch = self._torch
        # TF32 keeps only 10 bits of a number's fraction. With TF32, the features on the GPU and on
        # the CPU would differ by more than the promised 1e-3.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            logits, features = self._network(torch.tensor(squares, device="cuda"))
        return logits.cpu().numpy(), features.cpu().numpy()
