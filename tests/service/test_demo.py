"""The steps of the demo, with a trained model. tests/end_to_end runs the whole demo."""

import json
import os
import shutil
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, PROBE
from service.demo import FIGURE_FILES, demo
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from training.errors import UserError
from training.learning.request import Request
from training.network.model import CARD_FILE, read_card
from training.network.pretrained import WeightsError


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
    assert steps(workdir, colour_folder, capsys) == [True, False, False, False, False]
    index = Index.open(workdir / "index")
    assert index.count() == len(COLOURS) * NUM_IMAGES_PER_COLOUR
    assert all((workdir / "figures" / name).exists() for name in FIGURE_FILES)
    # The index is too small for codes, so that step is tried again every time.
    assert steps(workdir, colour_folder, capsys) == [True, True, False, True, True]
    assert "<html" in (workdir / "report.html").read_text("utf-8")


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


def test_a_model_is_used_as_it_is_and_learns_the_labels(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo(str(colour_folder), tmp_path, serve=False, init=str(tiny_model))
    printed = " ".join(capsys.readouterr().err.split())
    titles = ["Use the network", "Index the images", "Learn the labels", "Make binary codes"]
    assert [title for title in titles if title in printed] == titles
    index = Index.open(tmp_path / "index")
    assert PROBE in index.manifest.artefacts
    assert index.manifest.model_id == read_card(tiny_model).id
    assert all((tmp_path / "figures" / name).exists() for name in FIGURE_FILES)
    demo(str(colour_folder), tmp_path, serve=False)
    # The index is too small for codes, so only that step is tried again.
    assert capsys.readouterr().err.count("already done") == 5


def test_images_without_labels_are_indexed_with_a_trained_network(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, file in enumerate(sorted(colour_folder.rglob("*.png"))):
        shutil.copy(file, photos / f"{number}.png")
    demo(str(photos), tmp_path / "work", serve=False, init=str(tiny_model))
    printed = " ".join(capsys.readouterr().err.split())
    assert "No probe: " in printed
    assert Index.open(tmp_path / "work" / "index").count() == len(COLOURS) * NUM_IMAGES_PER_COLOUR


def test_with_epochs_a_trained_network_is_fine_tuned(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Request] = []

    def train(request: Request) -> None:
        requests.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.learning.session.train", train)
    with pytest.raises(KeyboardInterrupt):
        demo(str(colour_folder), tmp_path, serve=False, init=str(tiny_model), epochs=2)
    (request,) = requests
    assert (request.init, request.epochs, request.image_size) == (str(tiny_model), 2, None)


def test_an_image_size_is_refused_for_a_trained_network(
    tmp_path: Path, tiny_model: Path, colour_folder: Path
) -> None:
    with pytest.raises(UserError, match="--image-size has no effect with --init"):
        demo(str(colour_folder), tmp_path, serve=False, init=str(tiny_model), image_size=128)


def test_an_interrupted_copy_of_a_model_is_made_again(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("service.demo.shutil.copy2", stop)
        with pytest.raises(KeyboardInterrupt):
            demo(str(colour_folder), tmp_path, serve=False, init=str(tiny_model))
    assert not (tmp_path / "model").exists()
    demo(str(colour_folder), tmp_path, serve=False, init=str(tiny_model))
    assert read_card(tmp_path / "model").id == read_card(tiny_model).id
    assert not (tmp_path / ".model.tmp").exists()


def test_the_word_imagenet_is_not_a_folder_of_that_name(
    tmp_path: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError):
        demo(str(colour_folder), tmp_path / "work", serve=False, init="imagenet")
