"""A model directory -> logits and features of squares: on ONNX Runtime on the CPU, on torch on a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import onnxruntime

from indexer.array_types import Floats
from training.data.images import Pixels
from training.devices import Device, resolve_device
from training.network.model import ONNX_FILE, ModelCard, ModelError, check_file, read_card

if TYPE_CHECKING:
    from training.network.alexnet import AlexNet


@dataclass(frozen=True)
class Embedding:
    """What the network says of a batch: `logits` (B, classes) and `features` (B, 4096), float32."""

    logits: Floats
    features: Floats


@dataclass(frozen=True)
class ClassScore:
    """A class of the model and its probability, 0..1."""

    name: str
    index: int
    probability: float


class Embedder:
    """The network of a model directory, ready for squares; raises ModelError where the directory is not a whole model.

    `device`: `auto` takes a GPU if torch finds one. Torch is imported for a GPU only.
    """

    def __init__(
        self, model_directory: Path, *, device: Device = "cpu", num_threads: int | None = None
    ):
        self.card: ModelCard = read_card(model_directory)
        self.device: Literal["cpu", "gpu"] = resolve_device(device)
        self._forward: _Forward = (
            _TorchForward(model_directory)
            if self.device == "gpu"
            else _OnnxForward(model_directory, self.card, num_threads)
        )

    def embed(self, squares: Pixels) -> Embedding:
        """(B, S, S, 3) uint8 RGB, S the model's image size -> its logits and features. Safe to call from several threads."""
        return Embedding(*self._forward(squares))


def likeliest(logits: Floats, class_names: tuple[str, ...], k: int = 5) -> list[ClassScore]:
    """The `k` likeliest classes of one image's logits (classes,), likeliest first."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [
        ClassScore(class_names[index], int(index), float(probabilities[index])) for index in best
    ]


class _Forward(Protocol):
    def __call__(self, squares: Pixels) -> tuple[Floats, Floats]: ...


class _OnnxForward:
    def __init__(self, directory: Path, card: ModelCard, num_threads: int | None):
        file = check_file(directory, ONNX_FILE, card.onnx_sha256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        # Threads that spin while they wait for work would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        named = self._session.get_modelmeta().custom_metadata_map.get("model_id")
        if named != card.id:
            raise ModelError(
                f"{file} is of model {str(named)[:12]} but model.json is of {card.id[:12]}; run: lookalike export {directory}"
            )

    def __call__(self, squares: Pixels) -> tuple[Floats, Floats]:
        logits, features = self._session.run(["logits", "features"], {"images": squares})
        return logits, features


class _TorchForward:
    def __init__(self, directory: Path):
        import torch

        from training.network.export import load_network

        self._torch = torch
        self._network: AlexNet = load_network(directory, "cuda")[0].to(
            memory_format=torch.channels_last
        )

    def __call__(self, squares: Pixels) -> tuple[Floats, Floats]:
        torch = self._torch
        # TF32 rounds to 10 bits, which would part the GPU's features from the CPU's by more than the promised 1e-3.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            logits, features = self._network(torch.tensor(squares, device="cuda"))
        return logits.cpu().numpy(), features.cpu().numpy()
