"""Request: a training run that the user asks for, and the network that it starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from training.files import file_sha256
from training.learning.plan import SHAPE_SETTINGS
from training.learning.recipe import RecipeError
from training.network.alexnet import Architecture
from training.network.export import load_network
from training.network.importing import NUM_IMAGENET_CLASSES, default_names, read_network
from training.network.model import FROM_SCRATCH, IMAGENET
from training.network.pretrained import weights_file


@dataclass(frozen=True, kw_only=True)
class Request:
    """A training run that the user asks for."""

    data: str
    out: Path
    """The model directory."""
    recipe: str = "modern"
    validation: str | None = None
    """Other data to validate with. None means the held-out images of `data`, or a fifth of each
    class."""
    epochs: int | None = None
    image_size: int | None = None
    settings: Sequence[str] = ()
    """Settings of the form `name=value`. They override everything else."""
    resume: bool = False
    init: str | Path | None = None
    """The weights to start from: `imagenet`, a model directory, or a weights file as `lookalike
    import` takes it. `none` or None means random weights. If the classes differ, the last layer is
    new."""
    cache: Path | None = None
    """Folder that keeps the decoded images for later runs. None means that they are stored in `out`
    and deleted at the end."""
    tower_devices: Sequence[str] = ()
    """Two devices. One tower is trained on each."""
    has_tensorboard: bool = False
    writes_int8: bool = False
    """Whether the model also gets a network in int8."""


@dataclass(frozen=True)
class InitialModel:
    """The network that a run starts from."""

    name: str
    """As the user wrote it."""
    id: str
    """SHA-256 of its weights, as hexadecimal."""
    class_names: tuple[str, ...]
    """Empty if they are unknown."""
    architecture: Architecture
    state: Mapping[str, Tensor]

    @property
    def shapes(self) -> dict[str, Any]:
        """The settings that a recipe must share with this model.

        Dropout is not one of them, because it does not change the shape of the weights.
        """
        names = [name for name in SHAPE_SETTINGS if name != "dropout"]
        return {name: getattr(self.architecture, name) for name in names}

    def weights_for(self, class_names: Sequence[str]) -> dict[str, Tensor]:
        """The weights to start from. If the classes differ, the last layer is left out."""
        keeps_output = tuple(class_names) == self.class_names
        return {
            name: tensor
            for name, tensor in self.state.items()
            if keeps_output or not name.startswith("output.")
        }

    def architecture_for(self, num_classes: int, dropout: float) -> Architecture:
        """This model's architecture, with another number of classes and another dropout."""
        return replace(self.architecture, num_classes=num_classes, dropout=dropout)


def load_initial_model(init: str | Path | None) -> InitialModel | None:
    """Load the network that a request's `init` names; raises UserError.

    None means random weights.
    """
    if init is None or init == FROM_SCRATCH:
        return None
    file = weights_file(init)
    if file.is_dir():
        network, card = load_network(file)
        model_id, names = card.id, card.class_names
    elif not file.exists():
        raise RecipeError(
            f"{init} does not exist; --init takes {IMAGENET}, {FROM_SCRATCH}, a model directory, "
            "or a .pth, .safetensors or .caffemodel file"
        )
    else:
        network, _ = read_network(file)
        model_id, num_classes = file_sha256(file), network.architecture.num_classes
        names = default_names(num_classes) if num_classes == NUM_IMAGENET_CLASSES else ()
    return InitialModel(str(init), model_id, names, network.architecture, network.state_dict())
