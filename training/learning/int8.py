"""Give a model its network in int8, with images of a data set or of a training run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import centre
from training.errors import UserError
from training.learning.plan import Plan
from training.learning.training_images import absolute_name, decode
from training.network.model import INT8_FILE, Int8Card, ModelCard, read_card
from training.network.quantization.agreement import Targets
from training.network.quantization.images import Amounts, Images, divide
from training.network.quantization.int8_file import describe, write_int8
from training.progress import console


def quantize(directory: Path, data: str, amounts: Amounts | None = None) -> Int8Card:
    """Write model.int8.onnx with images of the data set `data`; raises UserError.

    If there are more images than `amounts`, they are drawn at random.
    """
    images = read_images(read_card(directory), data, amounts or Amounts())
    return write_int8(directory, images, data=absolute_name(data))


def read_images(card: ModelCard, data: str, amounts: Amounts) -> Images:
    """Draw and decode images for the network in int8 of a model; raises DataError.

    The training images of the data set calibrate and choose, and its held-out images report.
    """
    dataset, size = open_dataset(data), card.image_size
    num_training = amounts.choice + max(amounts.indexed, amounts.calibration)
    drawn = {
        "train": _draw(dataset.part("train"), num_training),
        "held-out": _draw(dataset.part("held-out"), amounts.report),
    }
    with TemporaryDirectory() as scratch:
        train, held_out = (
            decode(absolute_name(data), examples, size, Path(scratch), name)
            for name, examples in drawn.items()
        )
        targets = _targets(held_out.examples, card.class_names)
        # The squares are copies, so they stay when the canvases are deleted.
        return divide(centre(train.pixels, size), centre(held_out.pixels, size), targets, amounts)


def quantize_trained(plan: Plan, data: str, amounts: Amounts | None = None) -> None:
    """Write model.int8.onnx with the images of a training run, and print how well it works.

    `data` is the name of the images. A failure is printed too, and nothing is raised, because the
    trained model is complete without this file.
    """
    size = plan.recipe.image_size

    def write() -> Int8Card:
        images = divide(
            centre(plan.train.canvases, size),
            centre(plan.held_out.canvases, size),
            plan.held_out.targets.numpy(),
            amounts or Amounts(),
        )
        return write_int8(plan.directory, images, data=data)

    _try(write)


def quantize_if_possible(directory: Path, data: str, amounts: Amounts) -> None:
    """Do the same as `quantize`, and print the result. A failure is printed, and not raised."""
    _try(lambda: quantize(directory, data, amounts))


def _try(write: Callable[[], Int8Card]) -> None:
    try:
        console.print(describe(write()))
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        console.print(f"No {INT8_FILE}: {' '.join(reason.split())}")


def _draw(examples: Sequence[Example], count: int) -> list[Example]:
    """At most `count` of the examples, drawn at random, always the same ones."""
    order = np.random.default_rng(0).permutation(len(examples))
    return [examples[position] for position in np.sort(order[:count])]


def _targets(examples: Sequence[Example], class_names: Sequence[str]) -> Targets | None:
    """The class index of each example. None if the network does not know a label, or has none."""
    index = {name: number for number, name in enumerate(class_names)}
    if any(example.label not in index for example in examples):
        return None
    return np.array([index[str(example.label)] for example in examples], np.int64)
