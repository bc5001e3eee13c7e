"""The training loop on coloured canvases: it learns, it stops when asked to, and it resumes."""

import dataclasses
import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.learning.small_plans import (
    HELD_OUT,
    RECIPE,
    interrupt_training,
    press_ctrl_c_twice,
    read_log,
    read_position,
    train,
)
from training.files import file_sha256
from training.learning.augment import augment
from training.learning.checkpoint import CHECKPOINT_FILE
from training.learning.evaluation import Metrics
from training.learning.log import CURVE_FILE
from training.learning.optimizer import set_rate
from training.learning.run import Run
from training.learning.step import Batch
from training.learning.trainer import tf32_products
from training.network.alexnet import AlexNet

pytestmark = pytest.mark.usefixtures("narrow")


@dataclass
class Finished:
    """An uninterrupted run, and the positions of the images in each of its batches."""

    directory: Path
    network: AlexNet
    batches: list[list[int]]


@pytest.fixture(scope="module")
def finished(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory = tmp_path_factory.mktemp("finished")
    batches: list[list[int]] = []

    def note_and_augment(canvases: Tensor, *others: Any) -> Tensor:
        batches.append(canvases[:, 0, 0, 0].tolist())
        return augment(canvases, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.step.augment", note_and_augment)
        network = train(directory)
    return Finished(directory, network, batches)


def assert_is_as_finished(network: AlexNet, directory: Path, finished: Finished) -> None:
    """Bit for bit the same weights, and the same log except for its times."""
    for name, tensor in finished.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    lines = zip(read_log(directory), read_log(finished.directory), strict=True)
    assert all(without_times(one) == without_times(other) for one, other in lines)


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in line.items() if name not in ("images_per_s", "elapsed_s")
    }


def test_a_run_learns_colours(finished: Finished) -> None:
    log = read_log(finished.directory)
    assert log[-1]["val_top1"] == 1
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    with torch.inference_mode():
        logits, _ = finished.network(torch.from_numpy(HELD_OUT.canvases[:, 5:72, 5:72]))
    assert torch.equal(logits.argmax(1), HELD_OUT.targets)
    assert not finished.network.training


def test_products_use_tf32_only_while_a_network_is_trained() -> None:
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    with tf32_products():
        assert products.allow_tf32
    assert products.allow_tf32 == before


def test_every_epoch_shows_every_image_once_in_another_order(finished: Finished) -> None:
    assert [len(batch) for batch in finished.batches] == [8] * 9
    epochs = [list(itertools.chain(*finished.batches[start : start + 3])) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    # Batch norm counts the batches that it sees in training mode.
    assert int(finished.network.get_buffer("convolutions.norm1.num_batches_tracked")) == 9


def test_the_log_has_one_line_per_epoch_and_the_curve_is_drawn(finished: Finished) -> None:
    log = read_log(finished.directory)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    # The warm-up takes half an epoch, so the rate of the last step falls from the first epoch on.
    assert log[0]["learning_rate"] > log[1]["learning_rate"] > log[2]["learning_rate"] > 0
    assert all(
        0 <= line[name] <= 1 for line in log for name in ("train_error", "val_top1", "val_top5")
    )
    assert 0 < log[0]["elapsed_s"] < log[1]["elapsed_s"] < log[2]["elapsed_s"]
    with Image.open(finished.directory / CURVE_FILE) as curve:
        assert curve.format == "PNG"


def test_a_run_resumed_within_an_epoch_ends_bit_for_bit_as_an_uninterrupted_one(
    finished: Finished, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_position(unfinished) == (1, 2)
    resumed = train(unfinished, resume=True)
    assert "Resuming after epoch 1 of 3, step 2\n" in capsys.readouterr().err
    assert_is_as_finished(resumed, unfinished, finished)
    with Image.open(unfinished / CURVE_FILE) as curve:
        assert curve.format == "PNG"


def test_a_run_may_be_stopped_again_and_again_in_any_step(
    finished: Finished, tmp_path: Path
) -> None:
    def resume() -> None:
        train(tmp_path, resume=True)

    interrupt_training(1, lambda: train(tmp_path))
    assert read_position(tmp_path) == (0, 1)
    interrupt_training(2, resume, lambda _: signal.raise_signal(signal.SIGTERM))
    # After the last step of an epoch, the epoch is finished before the run stops.
    assert read_position(tmp_path) == (1, 0)
    interrupt_training(4, resume)
    assert read_position(tmp_path) == (2, 1)
    assert_is_as_finished(train(tmp_path, resume=True), tmp_path, finished)


def test_an_interruption_says_what_is_saved_and_how_to_continue(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_training(1, lambda: train(unfinished, resume=True))
    saved = f"the run is saved in {unfinished / CHECKPOINT_FILE}; to continue it, pass --resume"
    assert f"Interrupted: {saved}\n" in capsys.readouterr().err


def test_a_second_ctrl_c_interrupts_at_once_and_leaves_the_checkpoint(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_sha256(unfinished / CHECKPOINT_FILE)
    interrupt_training(1, lambda: train(unfinished, resume=True), press_ctrl_c_twice)
    assert file_sha256(unfinished / CHECKPOINT_FILE) == before
    assert "to continue it, pass --resume" in capsys.readouterr().err


def test_a_second_ctrl_c_in_the_first_epoch_promises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_training(1, lambda: train(tmp_path), press_ctrl_c_twice)
    assert capsys.readouterr().err == "Interrupted: nothing is saved yet\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("interval_s", "num_saved"), [(0.0, 3), (600.0, 1)])
def test_short_epochs_are_not_all_saved_but_the_last_one_is(
    interval_s: float, num_saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    save = Run.save

    def counted(run: Run) -> None:
        epochs.append(run.epoch)
        save(run)

    monkeypatch.setattr(Run, "save", counted)
    monkeypatch.setattr("training.learning.trainer.SAVE_INTERVAL_S", interval_s)
    train(tmp_path)
    assert epochs == [1, 2, 3][-num_saved:]
    assert read_position(tmp_path) == (3, 0)


def test_a_long_epoch_is_saved_from_time_to_time(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut costs only the steps since the last save. Two Ctrl-C stand in for it here."""
    monkeypatch.setattr("training.learning.epoch.CHECKPOINT_INTERVAL_S", 0.0)
    interrupt_training(3, lambda: train(tmp_path), press_ctrl_c_twice)
    assert read_position(tmp_path) == (0, 2)
    interrupt_in_validation(tmp_path)
    assert read_position(tmp_path) == (0, 3)  # all steps are done, but the epoch is not finished
    monkeypatch.undo()
    assert_is_as_finished(train(tmp_path, resume=True), tmp_path, finished)


def interrupt_in_validation(directory: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.epoch.validate", press_ctrl_c_twice)
        with pytest.raises(KeyboardInterrupt):
            train(directory, resume=True)


def test_a_resumed_run_counts_the_time_before_it_was_stopped(unfinished: Path) -> None:
    state = torch.load(unfinished / CHECKPOINT_FILE, weights_only=True)
    before_s = state["log"][-1]["elapsed_s"] + state["position"]["elapsed_s"]
    started_s = time.perf_counter()
    train(unfinished, resume=True)
    resumed_s = time.perf_counter() - started_s
    log = read_log(unfinished)
    assert before_s < log[1]["elapsed_s"] < log[2]["elapsed_s"] < before_s + resumed_s


def test_a_finished_run_has_nothing_left_to_do_when_resumed(
    finished: Finished, tmp_path: Path
) -> None:
    os.link(finished.directory / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.epoch.train_step", press_ctrl_c_twice)
        network = train(tmp_path, resume=True)
    last = "output.fc8.weight"
    assert torch.equal(network.get_parameter(last), finished.network.get_parameter(last))


def test_the_plateau_ends_a_run_early(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, schedule="plateau", learning_rate=0.01, patience_epochs=1, epochs=20
    )
    accuracies = itertools.chain([0.2, 0.4], itertools.repeat(0.6))

    def step(run: Run, batch: Batch, rate: float) -> Tensor:
        set_rate(run.optimizer, rate, run.plan.recipe)
        return torch.zeros(2)

    def validate(_: Run) -> Metrics:
        return Metrics(top1=next(accuracies), top5=1.0, loss=1.0, num_images=6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.epoch.train_step", step)
        patch.setattr("training.learning.epoch.validate", validate)
        patch.setattr("training.learning.run.Run.save", lambda _: None)
        train(tmp_path, recipe)
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    # The fourth epoch is the first that is not better than the one before.
    assert rates == pytest.approx([1e-2] * 4 + [1e-3, 1e-4, 1e-5])
