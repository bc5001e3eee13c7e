"""The images of a training run: the training images, the held-out images, and their canvases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.data.cache import Canvases, cached_canvases
from training.data.datasets import Dataset, class_names, fingerprint, open_dataset
from training.data.examples import DataError, Example
from training.data.skipped import SKIPPED_FILE, Skipped, write_skipped
from training.learning.distributed import Workers
from training.learning.plan import Split
from training.learning.request import Request
from training.parallel import num_cores
from training.progress import Bar


@dataclass(frozen=True)
class Selection:
    """The labelled examples of a run. They are not decoded yet."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    cache_names: tuple[str, str]
    """The names of the two parts' canvases in the cache folder: first `train`, then `held_out`."""
    class_names: tuple[str, ...]
    """The class names in the order of the class indices."""

    def fingerprint(self) -> str:
        """Identifies the images. No image is decoded."""
        return fingerprint((*self.train, *self.held_out))


@dataclass(frozen=True)
class DecodedImages:
    """The canvases of a run, and the files that were skipped."""

    train: Split
    held_out: Split
    skipped: list[Skipped]
    fingerprint: str
    """Identifies the images that could be read."""


def select_examples(request: Request, dataset: Dataset) -> Selection:
    """Choose the images to train on and to hold out.

    Raises DataError if nothing can be learned from the training images, or if a class has no
    held-out image.
    """
    has_own_split = request.validation is None or dataset.held_out is not None
    train = labelled(dataset.part("train" if has_own_split else "all"))
    if request.validation:
        held_out = labelled(open_dataset(request.validation).part("all"))
    else:
        held_out = labelled(dataset.part("held-out"))
    if not train:
        raise DataError(
            f"{request.data} has no labelled images to train on; "
            "pass a folder of class folders, a CSV (path,label), or tar shards"
        )
    names = class_names(train)
    _check_classes(names, held_out, request)
    cache_names = (
        "train" if has_own_split else "all",
        "validation" if request.validation else "held-out",
    )
    return Selection(train, held_out, cache_names, names)


def decode_selection(
    request: Request, selection: Selection, size: int, cache: Path, workers: Workers
) -> DecodedImages:
    """Decode the images for squares of `size` pixels, and list unreadable files in skipped.csv.

    The first process decodes the images while the other processes wait. Raises DataError if a class
    has no readable training image or no readable held-out image.
    """
    if not workers.is_first:
        workers.wait()
    try:
        sources = (absolute_name(request.data), absolute_name(request.validation or request.data))
        examples = (selection.train, selection.held_out)
        train, held_out = (
            decode(source, part, size, cache, name)
            for source, part, name in zip(sources, examples, selection.cache_names, strict=True)
        )
    finally:
        if workers.is_first:
            workers.wait()
    skipped = train.skipped + held_out.skipped
    if workers.is_first:
        write_skipped(skipped, request.out / SKIPPED_FILE)
    names = selection.class_names
    if not train.examples:
        raise DataError(
            f"{request.data} has no readable image: {skipped[0].path}: {skipped[0].reason}; "
            f"all are listed in {request.out / SKIPPED_FILE}"
        )
    _check_readable(names, train.examples, "training", request)
    _check_readable(names, held_out.examples, "held-out", request)
    return DecodedImages(
        to_split(train, names),
        to_split(held_out, names),
        skipped,
        fingerprint((*train.examples, *held_out.examples)),
    )


def decode(data: str, examples: Sequence[Example], size: int, cache: Path, name: str) -> Canvases:
    """Decode examples for squares of `size` pixels, with a progress bar.

    The canvases are kept under `name` in the folder `cache`.
    """
    file = cache / f"{name}-{size}px.u8"
    with Bar("Decoding", len(examples)) as bar:
        return cached_canvases(
            data, examples, size, file, num_threads=num_cores(), advance=bar.advance
        )


def to_split(canvases: Canvases, names: Sequence[str]) -> Split:
    """The canvases and their targets. A target is the index of the image's label in `names`."""
    index = {name: number for number, name in enumerate(names)}
    targets = [index[str(example.label)] for example in canvases.examples]
    return Split(canvases.pixels, torch.tensor(targets, dtype=torch.int64))


def labelled(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples that have a label."""
    return tuple(example for example in examples if example.label is not None)


def absolute_name(data: str) -> str:
    """The name of the data as an absolute path. The name `digits` stays as it is."""
    return data if data == "digits" else str(Path(data).resolve())


def _check_classes(names: Sequence[str], held_out: Sequence[Example], request: Request) -> None:
    if len(names) < 2:
        raise DataError(
            f"{request.data} has a single class ({names[0]}); training needs two or more classes"
        )
    source = request.validation or request.data
    if not held_out:
        raise DataError(
            f"{source} has no labelled image to validate with; "
            "pass images of the same classes as --val DATA"
        )
    held_out_names = class_names(held_out)
    if unknown := sorted(set(held_out_names) - set(names)):
        raise DataError(
            "the held-out images have classes that the training images do not have: "
            f"{', '.join(unknown[:5])}; "
            "add training images of these classes, or leave the classes out"
        )
    if missing := sorted(set(names) - set(held_out_names)):
        raise DataError(
            f"{source} has no image to validate with of class {', '.join(missing[:5])}; "
            "add images (with two images, one is held out), or leave the class out"
        )


def _check_readable(
    names: Sequence[str], readable: Sequence[Example], part: str, request: Request
) -> None:
    if missing := sorted(set(names) - set(class_names(readable))):
        raise DataError(
            f"no {part} image of class {', '.join(missing[:5])} can be read; "
            f"the reasons are in {request.out / SKIPPED_FILE}"
        )
