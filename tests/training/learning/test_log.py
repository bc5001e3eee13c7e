"""The records of a run: one JSON line per epoch, the learning curve, and TensorBoard's events."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.training.pictures import assert_is_a_picture
from training.errors import UserError
from training.learning.log import (
    CURVE_FILE,
    LOG_FILE,
    TENSORBOARD_FOLDER,
    Epoch,
    TensorBoard,
    check_tensorboard,
    draw_learning_curve,
    draw_log,
    write_log,
)


def line(epoch: int, val_top1: float = 0.75) -> Epoch:
    return Epoch(
        epoch=epoch,
        learning_rate=0.5,
        train_loss=2.0 / epoch,
        train_error=0.5,
        val_loss=1.0,
        val_top1=val_top1,
        val_top5=1.0,
        images_per_s=64.0,
        elapsed_s=10.0 * epoch,
    )


def read_events(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of each chart, as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(directory / TENSORBOARD_FOLDER))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_the_log_has_one_json_line_per_epoch_and_a_curve(tmp_path: Path) -> None:
    write_log([line(1), line(2)], tmp_path)
    draw_log([line(1), line(2)], tmp_path)
    assert [json.loads(text) for text in (tmp_path / LOG_FILE).read_text().splitlines()] == [
        {
            "epoch": 1,
            "learning_rate": 0.5,
            "train_loss": 2.0,
            "train_error": 0.5,
            "val_loss": 1.0,
            "val_top1": 0.75,
            "val_top5": 1.0,
            "images_per_s": 64.0,
            "elapsed_s": 10.0,
        },
        {
            "epoch": 2,
            "learning_rate": 0.5,
            "train_loss": 1.0,
            "train_error": 0.5,
            "val_loss": 1.0,
            "val_top1": 0.75,
            "val_top5": 1.0,
            "images_per_s": 64.0,
            "elapsed_s": 20.0,
        },
    ]
    with Image.open(tmp_path / CURVE_FILE) as curve:
        assert curve.format == "PNG"
    assert {file.name for file in tmp_path.iterdir()} == {LOG_FILE, CURVE_FILE}


def test_a_longer_log_replaces_the_shorter(tmp_path: Path) -> None:
    write_log([line(1)], tmp_path)
    write_log([line(1), line(2)], tmp_path)
    assert len((tmp_path / LOG_FILE).read_text().splitlines()) == 2


def test_tensorboard_without_its_package_is_refused_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.learning.log.find_spec", lambda _: None)
    with pytest.raises(UserError) as caught:
        check_tensorboard()
    assert str(caught.value) == (
        "--tensorboard needs the package tensorboard, which is not installed; "
        "install it with: pip install tensorboard"
    )


def test_tensorboard_shows_training_beside_validation(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    check_tensorboard()
    events = TensorBoard(tmp_path, num_epochs_done=0)
    events.write(line(1))
    events.write(line(2))
    events.close()
    charts = read_events(tmp_path)
    assert charts["loss/training"] == [(1, 2.0), (2, 1.0)]
    assert charts["loss/validation"] == [(1, 1.0), (2, 1.0)]
    assert charts["error/validation"] == [(1, 0.25), (2, 0.25)]
    assert charts["learning rate"] == [(1, 0.5), (2, 0.5)]
    assert charts["images per second"] == [(1, 64.0), (2, 64.0)]


def test_a_resumed_run_replaces_the_events_of_epochs_that_it_repeats(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = TensorBoard(tmp_path, num_epochs_done=0)
    for epoch in (1, 2, 3):
        first.write(line(epoch))
    first.close()
    resumed = TensorBoard(tmp_path, num_epochs_done=1)
    resumed.write(line(2, val_top1=1.0))
    resumed.close()
    assert read_events(tmp_path)["error/validation"] == [(1, 0.25), (2, 0.0)]


def test_without_matplotlib_no_picture_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.log.find_spec", lambda _: None)
    draw_log([line(1)], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_the_learning_curve_is_a_png(num_epochs: int, tmp_path: Path) -> None:
    log = [asdict(line(epoch)) for epoch in range(1, num_epochs + 1)]
    draw_learning_curve(log, tmp_path / "curve.png")
    assert_is_a_picture(tmp_path / "curve.png")
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_the_learning_curve_shows_loss_error_in_per_cent_and_rate_by_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("training.plotting.save_figure", lambda figure, _: drawn.append(figure))
    first = replace(line(1, val_top1=0.25), learning_rate=0.1, val_loss=3.0, val_top5=0.75)
    second = replace(first, epoch=2, learning_rate=0.05, train_loss=1.0, val_top1=0.5)
    third = replace(second, epoch=3, val_loss=None, val_top1=None, val_top5=None)
    draw_learning_curve([asdict(first), asdict(second), asdict(third)], Path("unused.png"))
    losses, errors, rates = drawn[0].axes
    curves = {curve.get_label(): np.asarray(curve.get_xydata()).tolist() for curve in losses.lines}
    training = [[1, 2], [2, 1], [3, 1]]
    assert curves == {"training (augmented)": training, "validation": [[1, 3], [2, 3]]}
    heights = [np.asarray(curve.get_ydata()).tolist() for curve in errors.lines]
    assert heights == [[50, 50, 50], [75, 50], [25, 25]]
    assert np.asarray(rates.lines[0].get_ydata()).tolist() == [0.1, 0.05, 0.05]
