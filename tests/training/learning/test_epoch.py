"""An epoch: every image once, its figures, and a run that diverges."""

import dataclasses
import re
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.training.learning.small_plans import (
    HELD_OUT,
    RECIPE,
    TRAIN,
    begin,
    call_in_step,
    interrupt_training,
    press_ctrl_c,
    read_position,
    refusal,
    train,
)
from training.interruption import StopRequest
from training.learning.checkpoint import CHECKPOINT_FILE, TrainingError
from training.learning.distributed import Workers
from training.learning.epoch import finish_epoch, is_validated, train_epoch, validate
from training.learning.evaluation import evaluate
from training.learning.plan import Split
from training.learning.run import Run
from training.learning.step import Batch

pytestmark = pytest.mark.usefixtures("narrow")


def break_weights(run: Run) -> None:
    torch.nn.init.constant_(run.network.get_parameter("output.fc8.weight"), torch.nan)


def assert_is_finite(directory: Path) -> None:
    state = torch.load(directory / CHECKPOINT_FILE, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_an_epoch_uses_every_image_once_even_in_a_last_batch_of_one() -> None:
    run = begin(train=Split(TRAIN.canvases[:9], TRAIN.targets[:9]))
    batches: list[list[int]] = []

    def note(_: Run, batch: Batch, rate: float) -> Tensor:
        batches.append(batch.canvases[:, 0, 0, 0].tolist())
        return torch.zeros(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.epoch.train_step", note)
        assert train_epoch(run, StopRequest())
    assert [len(batch) for batch in batches] == [8, 1]
    assert sorted(batches[0] + batches[1]) == list(range(9))
    assert (run.position.step, run.position.num_seen) == (2, 9)


def test_the_figures_of_an_epoch_are_means_over_its_images() -> None:
    run = begin(train=Split(TRAIN.canvases[:9], TRAIN.targets[:9]))
    figures = iter([(2.0, 0.25), (11.0, 1.0)])  # 8 images, and then 1 image

    def step(_: Run, batch: Batch, rate: float) -> Tensor:
        return torch.tensor(next(figures))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.epoch.train_step", step)
        train_epoch(run, StopRequest())
    assert run.position.loss_sum / run.position.num_seen == pytest.approx((8 * 2 + 11) / 9)
    assert run.position.num_wrong == 3


@pytest.mark.parametrize("num_processes", [1, 2, 4, 8])
def test_the_processes_validate_every_held_out_image_together(num_processes: int) -> None:
    run = begin()
    whole = evaluate(run.whole_network(), HELD_OUT.canvases, HELD_OUT.targets)
    sums: list[Tensor] = []

    class Alone(Workers):
        """One of several processes, whose sums are noted instead of averaged."""

        def mean(self, value: Tensor) -> Tensor:
            sums.append(value)
            return value

    for rank in range(num_processes):
        run.workers = Alone(rank, num_processes)
        assert validate(run).num_images == len(HELD_OUT.targets)
    top1, top5, loss, num_images = torch.stack(sums).sum(0).tolist()
    # With fewer images than processes, every process scores all images.
    repeats = num_processes if num_processes > len(HELD_OUT.targets) else 1
    assert num_images == repeats * len(HELD_OUT.targets)
    assert (top1 / num_images, top5 / num_images) == pytest.approx((whole.top1, whole.top5))
    assert loss / num_images == pytest.approx(whole.loss, rel=1e-4)


def test_an_infinite_loss_stops_the_run_and_keeps_the_checkpoint(unfinished: Path) -> None:
    # A resumed run may change the rate, because a lower one is the remedy.
    wild = dataclasses.replace(RECIPE, learning_rate=100.0)
    message = refusal(lambda: train(unfinished, wild, resume=True))
    assert re.match(
        r"the (validation )?loss became (inf|nan) in epoch [23], step [123], "
        r"at learning rate \d+\.?\d*; to resume from",
        message,
    )
    assert message.endswith(
        "to resume from the last checkpoint with a lower rate, pass --resume --set learning_rate=50"
    )
    assert_is_finite(unfinished)
    assert read_position(unfinished)[0] in (1, int(message.partition("epoch ")[2][0]) - 1)


def test_a_run_that_diverges_before_its_first_checkpoint_has_to_start_again(
    tmp_path: Path,
) -> None:
    message = refusal(lambda: train(tmp_path, dataclasses.replace(RECIPE, learning_rate=100.0)))
    assert message.endswith("to start again with a lower rate, pass --set learning_rate=50")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (1, "the validation loss became nan in epoch 2, step 3, at learning rate 0.001"),
        (2, "the loss became nan in epoch 3, step 2, at learning rate 0.0003"),
    ],
)
def test_weights_that_a_step_broke_are_not_saved(
    broken: int, complaint: str, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.trainer.SAVE_INTERVAL_S", 0.0)
    patch = call_in_step(broken, break_weights)
    message = refusal(lambda: train(unfinished, resume=True))
    patch.undo()
    assert message.startswith(complaint)
    assert message.endswith(
        "to resume from the last checkpoint with a lower rate, "
        "pass --resume --set learning_rate=0.001"
    )
    assert_is_finite(unfinished)
    assert read_position(unfinished) == ((1, 2) if broken == 1 else (2, 0))


@pytest.mark.parametrize("saved", ["from time to time", "for Ctrl-C"])
def test_weights_that_a_step_broke_are_not_saved_within_an_epoch(
    saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_and_save(run: Run) -> None:
        break_weights(run)
        if saved == "for Ctrl-C":
            press_ctrl_c(run)

    interrupt_training(1, lambda: train(tmp_path))
    interval_s = 0.0 if saved == "from time to time" else 600.0
    monkeypatch.setattr("training.learning.epoch.CHECKPOINT_INTERVAL_S", interval_s)
    patch = call_in_step(1, break_and_save)
    with pytest.raises(TrainingError, match="a weight became infinite or NaN in epoch 1, step 2"):
        train(tmp_path, resume=True)
    patch.undo()
    assert_is_finite(tmp_path)


@pytest.mark.parametrize(
    ("rate", "initialization", "expected"),
    [
        (1e-6, "paper", "--set initialization=kaiming"),
        (1e-6, "kaiming", "try another learning_rate"),
        (0.002, "kaiming", None),
    ],
)
def test_a_network_at_chance_level_after_five_epochs_gets_a_warning(
    rate: float,
    initialization: Literal["paper", "kaiming"],
    expected: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calm = dataclasses.replace(
        RECIPE,
        epochs=6,
        warmup_epochs=0.5,
        mixup=0.0,
        cutmix=0.0,
        dropout=0.0,
        label_smoothing=0.0,
    )
    train(tmp_path, dataclasses.replace(calm, learning_rate=rate, initialization=initialization))
    printed = capsys.readouterr().err.splitlines()
    warnings = [line for line in printed if "still at chance level (1.099)" in line]
    assert [expected in line for line in warnings] == [True] if expected else not warnings


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (3, [1, 2, 3]),
        (99, list(range(1, 100))),
        (134, [*range(2, 135, 2)]),
        (401, [*range(8, 401, 8), 401]),
    ],
)
def test_a_run_of_many_epochs_is_validated_about_fifty_times(
    epochs: int, expected: list[int]
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=epochs, schedule="cosine")
    validated = [epoch for epoch in range(1, epochs + 1) if is_validated(recipe, epoch)]
    assert validated == expected
    plateau = dataclasses.replace(recipe, schedule="plateau")
    assert all(is_validated(plateau, epoch) for epoch in range(1, epochs + 1))


def test_an_epoch_without_a_validation_has_no_figures_of_it_and_checks_the_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = begin(dataclasses.replace(RECIPE, epochs=200))
    train_epoch(run, StopRequest())
    finish_epoch(run)
    assert (run.log[0].val_loss, run.log[0].val_top1) == (None, None)
    assert "validation" not in capsys.readouterr().err
    train_epoch(run, StopRequest())
    break_weights(run)
    with pytest.raises(TrainingError, match="a weight became infinite or NaN in epoch 2, step 3"):
        finish_epoch(run)
