"""The network of the demo, and the trial that decides about fine-tuning."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.demo_network import MAX_TRIAL_EPOCHS, make_network
from service.demo_start import Start
from training.data.examples import DataError
from training.data.skipped import Skipped
from training.errors import UserError
from training.files import file_sha256
from training.learning.checkpoint import DivergenceError
from training.learning.request import Request
from training.learning.session import Result
from training.network.model import CARD_FILE, INT8_FILE, read_card
from training.network.pretrained import WeightsError

Trial = Callable[[float, float], list[Request]]
"""Let the next training have a top-1 and a probe's top-1. Return the list of its requests."""


@pytest.fixture
def trial(other_model: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    def prepare(top1: float, probe_top1: float) -> list[Request]:
        requests: list[Request] = []

        def train(request: Request) -> Result:
            requests.append(request)
            shutil.copytree(other_model, request.out)
            content = json.loads((request.out / CARD_FILE).read_text())
            content["metrics"] = {"top1": top1, "num_images": 100}
            content["data"]["probe_top1"] = probe_top1
            (request.out / CARD_FILE).write_text(json.dumps(content))
            skipped: list[Skipped] = []
            return Result(read_card(request.out), skipped)

        monkeypatch.setattr("training.learning.session.train", train)
        return requests

    return prepare


@pytest.fixture
def photos(tmp_path: Path, colour_folder: Path) -> Path:
    """Images whose labels `tiny_model` does not know: 18 in three classes."""
    for folder in colour_folder.iterdir():
        shutil.copytree(folder, tmp_path / "photos" / f"light {folder.name}")
    return tmp_path / "photos"


@pytest.mark.parametrize(("top1", "is_better"), [(0.56, True), (0.54, False), (0.4, False)])
def test_the_fine_tuned_network_is_used_if_it_is_clearly_better_than_the_probe(
    tmp_path: Path,
    tiny_model: Path,
    other_model: Path,
    photos: Path,
    trial: Trial,
    capsys: pytest.CaptureFixture[str],
    top1: float,
    is_better: bool,
) -> None:
    requests = trial(top1, 0.5)  # the standard error of 0.5 on 100 images is 0.05
    make_network(Start(str(photos), str(tiny_model)), tmp_path / "model")
    expected = other_model if is_better else tiny_model
    assert read_card(tmp_path / "model").id == read_card(expected).id
    printed = " ".join(capsys.readouterr().err.split())
    assert f"top-1 50.00% with a probe, {top1:.2%} after a short fine-tuning" in printed
    assert ("the network is used as it is" in printed) != is_better
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}
    (request,) = requests
    assert request.epochs == MAX_TRIAL_EPOCHS  # there are only 18 images


def test_what_earlier_runs_left_is_removed(
    tmp_path: Path, tiny_model: Path, other_model: Path, photos: Path, trial: Trial
) -> None:
    requests = trial(0.9, 0.5)
    start = Start(str(photos), str(tiny_model))
    (tmp_path / "model" / "canvases").mkdir(parents=True)  # training stopped while decoding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.demo_network._is_better", stop)
        with pytest.raises(KeyboardInterrupt):
            make_network(start, tmp_path / "model")
    assert (tmp_path / ".fine-tuned").exists()
    make_network(start, tmp_path / "model")
    assert len(requests) == 2
    assert read_card(tmp_path / "model").id == read_card(other_model).id
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}
    assert not (tmp_path / "model" / "canvases").exists()


def test_the_network_gets_a_network_in_int8_from_the_images_of_the_demo(
    tmp_path: Path,
    tiny_model: Path,
    colour_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("service.demo_network.has_int8_instructions", lambda: True)
    make_network(Start(str(colour_folder), str(tiny_model)), tmp_path / "model")
    int8 = read_card(tmp_path / "model").int8
    assert int8
    assert int8.calibration["data"] == str(colour_folder)
    assert int8.calibration["num_choice_images"] == 0  # which is quick
    assert (tmp_path / "model" / INT8_FILE).exists()
    assert f"{INT8_FILE}: " in capsys.readouterr().err


def test_a_processor_without_instructions_for_int8_does_not_delay_the_demo(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.demo_network.has_int8_instructions", lambda: False)
    make_network(Start(str(colour_folder), str(tiny_model)), tmp_path / "model")
    assert read_card(tmp_path / "model").int8 is None
    assert not (tmp_path / "model" / INT8_FILE).exists()


def test_an_initial_model_that_lost_its_network_in_int8_is_enough(
    tmp_path: Path, int8_model: Path, colour_folder: Path
) -> None:
    initial = tmp_path / "initial"
    shutil.copytree(int8_model, initial, ignore=shutil.ignore_patterns(INT8_FILE))
    make_network(Start(str(colour_folder), str(initial)), tmp_path / "model")
    assert read_card(tmp_path / "model") == read_card(int8_model)


def test_a_network_in_int8_of_the_initial_model_is_kept(
    tmp_path: Path, int8_model: Path, colour_folder: Path
) -> None:
    make_network(Start(str(colour_folder), str(int8_model)), tmp_path / "model")
    assert read_card(tmp_path / "model") == read_card(int8_model)
    assert file_sha256(tmp_path / "model" / INT8_FILE) == file_sha256(int8_model / INT8_FILE)


def stop(*_: object) -> bool:
    raise KeyboardInterrupt


def test_a_network_that_knows_the_labels_is_used_without_a_trial(
    tmp_path: Path, tiny_model: Path, colour_folder: Path, trial: Trial
) -> None:
    requests = trial(0.9, 0.5)
    make_network(Start(str(colour_folder), str(tiny_model)), tmp_path / "model")
    assert requests == []
    assert read_card(tmp_path / "model").id == read_card(tiny_model).id


def test_many_images_are_not_fine_tuned_on_without_being_asked(
    tmp_path: Path,
    tiny_model: Path,
    photos: Path,
    trial: Trial,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    requests = trial(0.9, 0.5)
    monkeypatch.setattr("service.demo_network.NUM_TRIAL_IMAGES", 14)
    make_network(Start(str(photos), str(tiny_model)), tmp_path / "model")
    assert requests == []
    assert "No fine-tuning, because 15 images take long" in capsys.readouterr().err


@pytest.mark.parametrize("error", [DataError, DivergenceError])
def test_images_that_cannot_be_trained_on_are_used_without_fine_tuning(
    tmp_path: Path,
    tiny_model: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[UserError],
) -> None:
    def refuse(request: Request) -> Result:
        raise error("no image to validate with; pass --val DATA")

    monkeypatch.setattr("training.learning.session.train", refuse)
    make_network(Start(str(photos), str(tiny_model)), tmp_path / "model")
    assert read_card(tmp_path / "model").id == read_card(tiny_model).id
    printed = capsys.readouterr().err
    assert "No fine-tuning: no image to validate with" in printed
    assert "--val" not in printed  # the demo does not have this option


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["light red"], "no training image of class light red can be read"),
        (["light blue", "light green", "light red"], "has no readable image: light blue/0.png: "),
    ],
)
def test_a_real_trial_without_readable_images_names_no_file_that_the_demo_removes(
    tmp_path: Path,
    tiny_model: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    labels: list[str],
    problem: str,
) -> None:
    for label in labels:
        for file in (photos / label).iterdir():
            file.write_bytes(b"")
    make_network(Start(str(photos), str(tiny_model)), tmp_path / "model")
    printed = " ".join(capsys.readouterr().err.split())
    assert "No fine-tuning: " in printed
    assert problem in printed
    assert "skipped.csv" not in printed
    assert ".fine-tuned" not in printed
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}


def test_without_imagenet_weights_the_refusal_ends_with_the_way_to_train_from_scratch(
    tmp_path: Path, photos: Path
) -> None:
    hint = r"which does not exist; .*; to train from scratch on labelled images, pass --init none$"
    for epochs in (None, 2):
        with pytest.raises(WeightsError, match=hint):
            make_network(Start(str(photos), "imagenet", epochs), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_real_trial_compares_the_probe_with_the_trained_network(
    tmp_path: Path,
    tiny_model: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("service.demo_network.MAX_TRIAL_EPOCHS", 2)
    make_network(Start(str(photos), str(tiny_model)), tmp_path / "model")
    printed = " ".join(capsys.readouterr().err.split())
    assert "top-1 100.00% with a probe" in printed  # the colours are easy to tell apart
    assert read_card(tmp_path / "model").id == read_card(tiny_model).id
