"""The steps of the demo, with a trained model. tests/end_to_end runs the whole demo."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from indexer.opening import OpenIndex
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, PROBE
from service.demo import FIGURE_FILES, demo
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from training.data.datasets import held_out_examples, open_dataset
from training.data.examples import Example
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
    comparison = Index.open(workdir / "index").manifest.distance_comparison
    assert comparison is not None
    assert comparison.better_metric == "euclidean"
    # The index is too small for codes, so that step is tried again every time.
    assert steps(workdir, colour_folder, capsys) == [True, True, False, True, True]
    assert "<html" in (workdir / "report.html").read_text("utf-8")


def test_figures_older_than_the_index_are_drawn_again(
    workdir: Path, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(workdir, colour_folder, capsys)
    made_at = (workdir / "index" / MANIFEST_FILE).stat().st_mtime
    os.utime(workdir / "figures" / FIGURE_FILES[0], (made_at - 1, made_at - 1))
    assert steps(workdir, colour_folder, capsys)[4] is False
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


def draw(
    workdir: Path, data: Path, monkeypatch: pytest.MonkeyPatch, init: str | None = None
) -> set[str]:
    """Run the demo. Returns the paths of the images from which Figure 4 is drawn."""
    drawn: list[str] = []

    def note(opened: OpenIndex, examples: Sequence[Example], file: Path) -> None:
        drawn.extend(example.path for example in examples)
        file.touch()

    monkeypatch.setattr("indexer.reports.figures.draw_figure_4", note)
    demo(str(data), workdir, serve=False, init=init)
    assert drawn
    return set(drawn)


def held_out_paths(data: Path) -> set[str]:
    return {example.path for example in held_out_examples(str(data))}


def test_figure_4_of_a_fine_tuned_network_shows_held_out_images_in_later_runs_too(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in colour_folder.iterdir():
        shutil.copytree(folder, tmp_path / "photos" / f"light {folder.name}")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.setattr("service.demo_network.MAX_TRIAL_EPOCHS", 1)
    monkeypatch.setattr("service.demo_network._is_better", lambda _: True)
    workdir, expected = tmp_path / "work", held_out_paths(tmp_path / "photos")
    first = draw(workdir, tmp_path / "link", monkeypatch, init=str(tiny_model))
    assert read_card(workdir / "model").class_names == ("light blue", "light green", "light red")
    (workdir / "figures" / FIGURE_FILES[1]).unlink()
    assert draw(workdir, tmp_path / "link", monkeypatch) == first == expected


def test_figure_4_shows_all_images_unless_the_network_was_trained_on_them(
    tmp_path: Path,
    workdir: Path,
    tiny_model: Path,
    colour_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = {example.path for example in open_dataset(colour_folder).part("all")}
    held_out = held_out_paths(colour_folder)
    assert draw(tmp_path / "a", colour_folder, monkeypatch, init=str(tiny_model)) == every
    assert draw(tmp_path / "b", colour_folder, monkeypatch, init=str(workdir / "model")) == held_out
    assert draw(workdir, colour_folder, monkeypatch) == held_out


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
        patch.setattr("service.demo_network.shutil.copy2", stop)
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


def write_folder(colours: Path, data: Path) -> None:
    shutil.copytree(colours, data)


def write_split(colours: Path, data: Path) -> None:
    """The folders `train` and `val`. A third of the images is held out."""
    for file in colours.rglob("*.png"):
        part = "val" if int(file.stem) % 3 == 0 else "train"
        copy = data / part / file.relative_to(colours)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def write_csv(colours: Path, data: Path) -> None:
    """A CSV with paths that are relative to its own folder."""
    shutil.copytree(colours, data.parent / "files")
    files = sorted(colours.rglob("*.png"))
    lines = (f"files/{file.relative_to(colours)},{file.parent.name}\n" for file in files)
    data.write_text("path,label\n" + "".join(lines))


def write_shards(colours: Path, data: Path) -> None:
    """Two tar files. `data` is the pattern `photos-{0..1}.tar`."""
    files = sorted(colours.rglob("*.png"))
    for number in range(2):
        with tarfile.open(data.with_name(f"photos-{number}.tar"), "w") as tar:
            for file in files[number::2]:
                tar.add(file, file.relative_to(colours))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for data. It is the current folder, so that relative paths begin there."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("data", "write", "first_path"),
    [
        ("photos", write_folder, "blue/0.png"),
        ("photos", write_split, "train/blue/1.png"),
        ("photos.csv", write_csv, "files/blue/0.png"),
        ("photos-{0..1}.tar", write_shards, "photos-0/blue/0.png"),
    ],
    ids=["folder", "train-and-val", "csv", "shards"],
)
def test_every_form_of_data_may_be_named_by_a_relative_path(
    data: str,
    write: Callable[[Path, Path], None],
    first_path: str,
    elsewhere: Path,
    tmp_path: Path,
    tiny_model: Path,
    colour_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(colour_folder, elsewhere / data)
    demo(data, Path("work"), serve=False, init=str(tiny_model))
    index = Index.open(elsewhere / "work" / "index")
    assert index.labels() == dict.fromkeys(COLOURS, NUM_IMAGES_PER_COLOUR)
    assert index.items(limit=1)[0].path == first_path
    assert PROBE in index.manifest.artefacts
    assert all((elsewhere / "work" / "figures" / name).exists() for name in FIGURE_FILES)
    monkeypatch.chdir(tmp_path)
    # Only the step of the codes is tried again, because the index is too small for them.
    repeated = steps(elsewhere / "work", elsewhere / data, capsys)
    assert repeated == [True, True, True, False, True, True]


def test_a_network_from_scratch_is_judged_by_the_images_of_the_folder_val(
    elsewhere: Path, colour_folder: Path
) -> None:
    write_split(colour_folder, elsewhere / "photos")
    demo("photos", Path("work"), serve=False, init="none", epochs=1, image_size=67)
    card = read_card(elsewhere / "work" / "model")
    assert card.class_names == tuple(COLOURS)
    assert card.metrics["num_images"] == 2 * len(COLOURS)
    assert Index.open(elsewhere / "work" / "index").count() == len(COLOURS) * NUM_IMAGES_PER_COLOUR
    assert all((elsewhere / "work" / "figures" / name).exists() for name in FIGURE_FILES)
