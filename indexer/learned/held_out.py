"""The items of an index that training holds out.

An index stores the paths and the labels of its items. Training on a data set with these paths and
labels always holds out the same images, so they are known without the data set.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.array_types import Rows
from indexer.storage.index import Index
from training.data.datasets import HELD_OUT_FOLDERS, split
from training.data.examples import Example

Mask = npt.NDArray[np.bool_]
Text = tuple[str, str | None]
"""The path and the label of an item."""

TRAIN_FOLDER = "train"


def held_out_by_training(texts: Sequence[Text], data: str) -> Mask:
    """A mask (n,) of the images that training on images with these paths and labels holds out.

    These are the images in a folder like `val` next to `train`, or else a fifth of each label.
    `data` is the name of the training data.
    """
    folder = held_out_folder((path for path, _ in texts), data)
    if folder is not None:
        return np.array([path.startswith(f"{folder}/") for path, _ in texts], bool)
    _, held_out = split(Example(path, label, b"") for path, label in texts)
    held_out_paths = {example.path for example in held_out}
    return np.array([path in held_out_paths for path, _ in texts], bool)


def held_out_folder(paths: Iterable[str], data: str) -> str | None:
    """The folder of held-out images next to `train`, or None.

    Paths from a CSV or from shards can begin with `train` and `val` too, but training does not
    treat them as such folders. So the result is None if the training data `data` has such a form.
    """
    folders = {path.partition("/")[0] for path in paths}
    if TRAIN_FOLDER not in folders or not is_folder_name(data):
        return None
    return next((name for name in HELD_OUT_FOLDERS if name in folders), None)


def is_folder_name(data: str) -> bool:
    """Whether training data with this name is a folder. Otherwise, it is a CSV or tar shards."""
    return Path(data).suffix.lower() not in (".csv", ".tar")


def without_copies(index: Index, rows: Rows, is_held_out: Mask) -> Mask:
    """The held-out rows (n,) whose bytes do not occur among the rows that are not held out."""
    # S32 drops zeros at the end. This is harmless, because all hashes have the same length.
    contents = np.ascontiguousarray(index.records["sha256"][rows]).view("S32").reshape(-1)
    return is_held_out & ~np.isin(contents, contents[~is_held_out])
