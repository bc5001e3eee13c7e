"""Networks in int8 from data sets and from training runs; a failure does not spoil a training."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import COLOURS
from tests.training.learning.small_requests import make_request
from training.data.examples import DataError
from training.errors import UserError
from training.files import file_sha256
from training.learning.int8 import quantize, quantize_if_possible
from training.learning.session import train
from training.network.model import INT8_FILE, Int8Card, read_card
from training.network.quantization.images import QUICK, Amounts, Images


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=os.link))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, int8_model: Path) -> list[tuple[Images, str]]:
    """The images and the names of the data that are used. Nothing is written."""
    calls: list[tuple[Images, str]] = []

    def write(directory: Path, images: Images, *, data: str) -> Int8Card:
        calls.append((images, data))
        int8 = read_card(int8_model).int8
        assert int8
        return int8

    monkeypatch.setattr("training.learning.int8.write_int8", write)
    return calls


def test_the_training_images_calibrate_and_the_held_out_images_report(
    own_model: Path, colour_folder: Path, written: list[tuple[Images, str]]
) -> None:
    quantize(own_model, str(colour_folder))
    ((images, data),) = written
    assert data == str(colour_folder)
    parts = (images.calibration, images.choice, images.others, images.report)
    assert [len(part) for part in parts] == [8, 7, 0, 3]  # one of six images is held out
    assert images.report.shape[1:] == (67, 67, 3)
    assert images.targets is not None
    assert sorted(images.targets) == list(range(len(COLOURS)))


def test_many_images_are_drawn_at_random(
    own_model: Path, colour_folder: Path, written: list[tuple[Images, str]]
) -> None:
    amounts = Amounts(calibration=2, choice=3, indexed=4, report=2)
    for _ in range(2):
        quantize(own_model, str(colour_folder), amounts)
    (first, _), (second, _) = written
    parts = (first.calibration, first.choice, first.others, first.report)
    assert [len(part) for part in parts] == [2, 3, 2, 2]
    assert (first.calibration == second.calibration).all()
    assert first.targets is not None
    assert len(first.targets) == 2


def test_images_of_unknown_classes_have_no_targets(
    own_model: Path, own_colour_folder: Path, written: list[tuple[Images, str]]
) -> None:
    (own_colour_folder / "red").rename(own_colour_folder / "pink")
    quantize(own_model, str(own_colour_folder))
    assert written[0][0].targets is None


def test_images_without_labels_are_enough(
    own_model: Path, colour_folder: Path, tmp_path: Path, written: list[tuple[Images, str]]
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in colour_folder.rglob("*.png"):
        shutil.copy(file, plain / f"{file.parent.name}-{file.name}")
    quantize(own_model, str(plain))
    images, _ = written[0]
    assert images.targets is None
    assert len(images.report) == 3


def test_too_few_images_are_refused_and_nothing_is_written(
    own_model: Path, own_colour_folder: Path
) -> None:
    for file in list(own_colour_folder.rglob("*.png"))[1:]:
        file.unlink()
    with pytest.raises(DataError, match="int8 needs at least 2 images"):
        quantize(own_model, str(own_colour_folder))
    assert not (own_model / INT8_FILE).exists()


def test_an_attempt_prints_the_result_or_the_reason_of_the_failure(
    own_model: Path,
    colour_folder: Path,
    written: list[tuple[Images, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quantize_if_possible(own_model, str(colour_folder), QUICK)
    assert capsys.readouterr().err.startswith(f"{INT8_FILE}: ")
    for error, line in (
        (UserError("too few"), "too few"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> Int8Card:
            raise error

        monkeypatch.setattr("training.learning.int8.write_int8", fail)
        quantize_if_possible(own_model, str(colour_folder), QUICK)
        assert capsys.readouterr().err == f"No {INT8_FILE}: {line}\n"


def test_training_leaves_a_network_in_int8(
    colour_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    card = train(make_request(colour_folder, out, writes_int8=True)).card
    assert card.int8
    assert card.int8.sha256 == file_sha256(out / INT8_FILE)
    assert card.int8.calibration["data"] == str(colour_folder)
    assert card.int8.agreement.accuracy_float32 == card.metrics["top1"]
    assert f"{INT8_FILE}: " in capsys.readouterr().err
    assert not (out / "canvases").exists()


def test_a_failure_does_not_spoil_the_training(
    colour_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> Int8Card:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("training.learning.int8.write_int8", fail)
    out = tmp_path / "model"
    card = train(make_request(colour_folder, out, writes_int8=True)).card
    assert card.int8 is None
    assert f"No {INT8_FILE}: RuntimeError: no kernel\n" in capsys.readouterr().err
    assert not (out / "canvases").exists()


def test_ctrl_c_leaves_a_complete_model_without_leftovers(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> Int8Card:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.learning.int8.write_int8", interrupt)
    out = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        train(make_request(colour_folder, out, writes_int8=True))
    assert read_card(out).int8 is None
    assert not (out / "canvases").exists()
    assert not (out / "checkpoint.pt").exists()
