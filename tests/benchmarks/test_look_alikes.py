from pathlib import Path

import pytest

from benchmarks.look_alikes import precision_of_look_alikes
from indexer.opening import open_index
from training.data.datasets import open_dataset
from training.data.examples import Example


def test_an_image_of_the_index_is_not_its_own_look_alike(
    tiny_index: Path, colour_folder: Path
) -> None:
    """Every image of a colour has five others, which are nearer than any other colour."""
    examples = open_dataset(str(colour_folder)).part("all")
    opened = open_index(tiny_index)
    assert precision_of_look_alikes(examples, opened, k=5) == 1
    # With k = 10, half of the look-alikes have to be of other colours.
    assert precision_of_look_alikes(examples, opened, k=10) == 0.5


def test_a_wrong_label_costs_precision(tiny_index: Path, colour_folder: Path) -> None:
    red, blue = (colour_folder / label / "0.png" for label in ("red", "blue"))
    examples = [Example("red/0.png", "red", red), Example("blue/0.png", "green", blue)]
    assert precision_of_look_alikes(examples, open_index(tiny_index), k=3) == pytest.approx(0.5)
