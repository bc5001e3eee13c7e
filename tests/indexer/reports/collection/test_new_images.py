import shutil
from pathlib import Path

import pytest

from indexer.embedder import Embedder
from indexer.reports.collection.cross_validation import ProbeAnswers
from indexer.reports.collection.findings import Accuracies
from indexer.reports.collection.new_images import (
    NewImages,
    answers_for_new_images,
    embed_new_images,
)
from tests.conftest import COLOURS, coloured
from tests.indexer.reports.collection.collections import open_sample
from training.data.examples import DataError


@pytest.fixture
def new_colours(tmp_path: Path, colour_folder: Path) -> Path:
    """Two new images of each colour, one that is in the index, one without use, one text file."""
    root = tmp_path / "new"
    for label in COLOURS:
        (root / label).mkdir(parents=True)
        for number in range(2):
            coloured(label, 900 + number).save(root / label / f"{number}.png")
    shutil.copy(colour_folder / "red" / "0.png", root / "red" / "indexed.png")
    (root / "purple").mkdir()
    coloured("red", 990).save(root / "purple" / "0.png")
    (root / "red" / "notes.png").write_text("not an image")
    return root


def ask(directory: Path, data: Path) -> tuple[NewImages, Accuracies]:
    index, sample, card = open_sample(directory)
    images = embed_new_images(str(data), index, sample, Embedder(directory / "model"))
    probe = ProbeAnswers(
        probabilities=None,  # type: ignore[arg-type]  # only the settings are used
        is_right_with_half=None,  # type: ignore[arg-type]
        scaling="length",
        inverse_penalty=0.1,
    )
    return images, answers_for_new_images(index, card, sample, images, probe, "cosine", 3)


def test_new_images_are_asked_about_and_the_others_are_counted(
    tiny_index: Path, new_colours: Path
) -> None:
    images, part = ask(tiny_index, new_colours)
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.num_left_out == 3
    assert (part.part, part.num_images) == ("queries", 6)
    assert part.probe is not None
    assert part.vote is not None
    assert (part.probe.value, part.vote.value) == (1, 1)
    assert part.chance == pytest.approx(1 / 3)


def test_the_networks_answer_is_its_likeliest_class(tiny_index: Path, new_colours: Path) -> None:
    """The classes of the untrained network are the colours in alphabetical order."""
    images, part = ask(tiny_index, new_colours)
    assert part.network is not None
    assert part.network.value == (images.classes == images.labels).mean()


def test_images_that_are_all_in_the_index_are_refused(
    tiny_index: Path, colour_folder: Path
) -> None:
    with pytest.raises(DataError, match=r"none of the 18 images .* pass other labelled images"):
        ask(tiny_index, colour_folder)
