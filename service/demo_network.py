"""The network of the demo: trained from scratch, or a trained one, fine-tuned if that is better.

A short trial decides about fine-tuning. Its network is compared with a probe, a logistic regression
on the features of the trained network. Both are measured on the images that training holds out.
"""

import math
import shutil
from pathlib import Path

from service.demo_start import Start
from training.data.datasets import class_names, open_dataset
from training.data.examples import DataError
from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.learning.sized_settings import NUM_LARGE
from training.network.model import (
    CARD_FILE,
    FROM_SCRATCH,
    IMAGENET,
    INT8_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelCard,
    read_card,
)
from training.processor import has_int8_instructions
from training.progress import console

QUICK_IMAGE_SIZE = 128
"""Side of the square for training from scratch on a large collection, in pixels. Training is three
times as fast as with 224 pixels, the size in the recipes."""
NUM_TRIAL_IMAGES = 1500
"""Number of images that a trial sees, over all its epochs. If there are more training images than
this, a trial takes too long, and the network is used as it is."""
MAX_TRIAL_EPOCHS = 50
"""Maximum number of epochs of a trial. With a dozen images, each epoch takes as long as a step."""


def make_network(start: Start, model: Path) -> None:
    """Write the model directory of the demo; raises UserError.

    An interrupted training is resumed by the next call. An interrupted trial is repeated.
    """
    temporary = (model.with_name(".model.tmp"), model.with_name(".fine-tuned"))
    for directory in temporary:
        shutil.rmtree(directory, ignore_errors=True)
    if start.is_trained:
        _train(start, model)
        _quantize(start, model)
        return
    untrained, trial = temporary
    _copy_or_import(start.init, untrained)
    chosen = trial if _is_worth_tuning(start, untrained, trial) else untrained
    _quantize(start, chosen)
    # The directory gets its name when it is complete. Before, a run that was interrupted while it
    # decoded its images can have left a directory without a network.
    shutil.rmtree(model, ignore_errors=True)
    chosen.replace(model)
    for directory in temporary:
        shutil.rmtree(directory, ignore_errors=True)


def _train(start: Start, model: Path) -> None:
    from training.learning.request import Request
    from training.learning.session import train

    request = Request(
        data=start.data,
        out=model,
        epochs=start.epochs,
        image_size=start.image_size or _quick_image_size(start),
        init=start.init,
        resume=True,
    )
    result = train(request)
    metrics = result.card.metrics
    skipped = describe_skipped(result.skipped, model / SKIPPED_FILE)
    console.print(
        f"Held-out images: top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%}; {skipped}"
    )


def _quantize(start: Start, model: Path) -> None:
    """Write the network in int8 if this processor can use it and the model does not have it yet.

    On other processors, it would only delay the demo. A failure is printed.
    """
    if read_card(model).int8 is None and has_int8_instructions():
        from training.learning.int8 import quantize_if_possible
        from training.network.quantization.images import QUICK

        quantize_if_possible(model, start.data, QUICK)


def _quick_image_size(start: Start) -> int | None:
    """The image size for training from scratch on a large collection. None means the default.

    For small collections, the default is small too.
    """
    if start.init != FROM_SCRATCH or start.data == "digits":
        return None
    num_images = len(open_dataset(start.data).part("train"))
    return QUICK_IMAGE_SIZE if num_images >= NUM_LARGE else None


def _copy_or_import(init: str, directory: Path) -> None:
    """Make a model directory of a network that is already trained."""
    if init != IMAGENET and Path(init).is_dir():
        card = read_card(Path(init))
        directory.mkdir()
        has_int8 = card.int8 and Path(init, INT8_FILE).exists()
        for name in (WEIGHTS_FILE, ONNX_FILE, CARD_FILE, *([INT8_FILE] if has_int8 else [])):
            shutil.copy2(Path(init, name), directory)
    else:
        from training.network.importing import import_weights
        from training.network.pretrained import hint_at_scratch

        with hint_at_scratch(init):
            card = import_weights(init, directory)
    console.print(f"{len(card.class_names):,} classes, {card.image_size} pixels")


def _is_worth_tuning(start: Start, untrained: Path, trial: Path) -> bool:
    """Fine-tune the network into the directory `trial`. Return whether it is clearly better."""
    examples = open_dataset(start.data).part("train")
    names = class_names(examples)
    if not names or names == read_card(untrained).class_names:
        return False
    num_images = sum(example.label is not None for example in examples)
    if num_images > NUM_TRIAL_IMAGES:
        console.print(
            f"No fine-tuning, because {num_images:,} images take long; "
            "to fine-tune, pass --epochs N and another --workdir"
        )
        return False
    from training.learning.checkpoint import DivergenceError
    from training.learning.request import Request
    from training.learning.session import train

    request = Request(
        data=start.data,
        out=trial,
        epochs=min(MAX_TRIAL_EPOCHS, NUM_TRIAL_IMAGES // num_images),
        init=untrained,
    )
    try:
        card = train(request).card
    except (DataError, DivergenceError) as error:
        # The remedy is for `lookalike train`: it names options of that command, and files in the
        # directory of the trial, which is removed. The index lists unreadable files too.
        problem = str(error).partition("; ")[0]
        console.print(f"No fine-tuning: {problem}")
        return False
    return _is_better(card)


def _is_better(card: ModelCard) -> bool:
    """Whether the fine-tuned network beats the probe by more than the standard error.

    The result is printed.
    """
    if card.data["probe_top1"] is None:  # too many classes for a probe
        return False
    tuned, probe = card.metrics["top1"], float(card.data["probe_top1"])
    is_better = tuned > probe + math.sqrt(probe * (1 - probe) / card.metrics["num_images"])
    choice = "the fine-tuned network is used" if is_better else "the network is used as it is"
    console.print(
        f"Held-out images: top-1 {probe:.2%} with a probe, {tuned:.2%} after a short fine-tuning; "
        f"{choice}"
    )
    return is_better
