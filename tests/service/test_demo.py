"""The steps of the demo, with a trained model. tests/end_to_end runs the whole demo."""

import json
import os
import shutil
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE
from service.demo import FIGURE_FILES, demo
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from training.errors import UserError
from training.network.model import CARD_FILE


@pytest.fixture
def workdir(tmp_path: Path, tiny_model: Path, colour_folder: Path) -> Path:
    """A working directory whose network counts as trained on `colour_folder`."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "work" / "model"))
    card = json.loads((model / CARD_FILE).read_text())
    card["data"]["name"] = str(colour_folder)
    (model / CARD_FILE).write_text(json.dumps(card))
    return tmp_path / "work"


def steps(workdir: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> list[bool]:
    """Run the demo. Returns for each step whether it was already done."""
    capsys.readouterr()
    demo(str(data), workdir, serve=False)
    printed = " ".join(capsys.readouterr().err.split())
    return ["already done" in step for step in printed.split("Step ")[1:]]


def test_the_demo_makes_only_what_is_missing(
    workdir: Path, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps(workdir, colour_folder, capsys) == [True, False, False, False]
    index = Index.open(workdir / "index")
    assert index.count() == len(COLOURS) * NUM_IMAGES_PER_COLOUR
    assert all((workdir / "figures" / name).exists() for name in FIGURE_FILES)
    # The index is too small for codes, so that step is tried again every time.
    assert steps(workdir, colour_folder, capsys) == [True, True, False, True]


def test_figures_older_than_the_index_are_drawn_again(
    workdir: Path, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(workdir, colour_folder, capsys)
    made_at = (workdir / "index" / MANIFEST_FILE).stat().st_mtime
    os.utime(workdir / "figures" / FIGURE_FILES[0], (made_at - 1, made_at - 1))
    assert steps(workdir, colour_folder, capsys)[3] is False
    assert (workdir / "figures" / FIGURE_FILES[0]).stat().st_mtime >= made_at


def test_an_index_too_small_for_codes_is_served_without_them(
    workdir: Path, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo(str(colour_folder), workdir, serve=False)
    assert "the index has 18 images, but learning codes needs at least 64" in " ".join(
        capsys.readouterr().err.split()
    )
    assert Index.open(workdir / "index").codes is None


def test_a_working_directory_of_other_data_is_refused(workdir: Path) -> None:
    with pytest.raises(UserError, match=r"was made from .*, not digits; pass another --workdir"):
        demo("digits", workdir, serve=False)
    assert not (workdir / "index").exists()
