"""Compute features and logits from squares, with the network of a model directory.

The network runs in ONNX Runtime on the CPU, and in torch on a GPU.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import onnxruntime

from indexer.array_types import Floats
from training.data.images import Pixels
from training.devices import Device, resolve_device
from training.network.model import ONNX_FILE, ModelCard, ModelError, check_file, read_card
from training.parallel import num_cores

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
    ):
        """Load the network; raises ModelError if the directory is not a complete model.

        If the model's card has been read already, pass it as `card`. The device `auto` is a GPU if
        torch can use one, otherwise the CPU. If the device is `cpu` or the machine has no NVIDIA
        driver, torch is not imported. `num_threads` is the number of CPU threads that the network
        uses; None means all cores.
        """
        self.card = read_card(model_directory) if card is None else card
        self.device: Literal["cpu", "gpu"] = resolve_device(device)
        self._forward: _Forward = (
            _TorchForward(model_directory, self.card)
            if self.device == "gpu"
            else _OnnxForward(model_directory, self.card, num_threads)
        )

    def embed(self, squares: Pixels) -> Embedding:
        """Run the network on squares (B, S, S, 3) uint8 RGB. S is the model's image size."""
        return Embedding(*self._forward(squares))


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
    def __init__(self, directory: Path, card: ModelCard, num_threads: int | None):
        file = check_file(directory, ONNX_FILE, card.onnx_sha256)
        options = onnxruntime.SessionOptions()
        # Without a number, ONNX Runtime would use all cores of the machine, whatever the quota.
        options.intra_op_num_threads = num_threads or num_cores()
        # Threads that spin while they wait would keep cores busy that are needed for decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        model_id = self._session.get_modelmeta().custom_metadata_map.get("model_id")
        if model_id != card.id:
            raise ModelError(
                f"{file} belongs to model {str(model_id)[:12]} but model.json belongs to model "
                f"{card.id[:12]}; to write the file again, run: lookalike export {directory}"
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
