"""The loop on coloured canvases: it learns, it goes on where it was stopped, and it says why it cannot."""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from training.alexnet import AlexNet
from training.augment import augment
from training.evaluation import Metrics
from training.model import file_sha256
from training.recipe import Recipe, modern, paper
from training.trainer import (
    CHECKPOINT_FILE,
    CURVE_FILE,
    LOG_FILE,
    Run,
    Split,
    TrainingError,
    recipe_seed,
    train_network,
    uses_bfloat16,
)

COLOURS = ((30, 60, 220), (30, 180, 60), (220, 40, 30))
RECIPE = dataclasses.replace(
    modern(),
    image_size=67,
    epochs=3,
    batch_size=8,
    learning_rate=0.002,
    max_gradient_norm=0.0,
    warmup_epochs=0.5,
    precision="float32",
    seed=3,
)
CPU = torch.device("cpu")


def colours(num_images: int, seed: int) -> Split:
    """Canvases of one noisy colour each, taking turns; the corner's red value is the image's number."""
    targets = np.arange(num_images) % len(COLOURS)
    noise = np.random.default_rng(seed).normal(0, 12, (num_images, 77, 77, 3))
    canvases = np.clip(np.array(COLOURS)[targets][:, None, None] + noise, 0, 255).astype(np.uint8)
    canvases[:, 0, 0, 0] = np.arange(num_images)
    return Split(canvases, torch.from_numpy(targets))


TRAIN, HELD_OUT = colours(24, seed=0), colours(6, seed=1)


def train(directory: Path, recipe: Recipe = RECIPE, *, fingerprint: str = "colours", resume: bool = False) -> AlexNet:
    return train_network(TRAIN, HELD_OUT, recipe, len(COLOURS), directory, fingerprint=fingerprint, resume=resume)


def read_log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / LOG_FILE).read_text().splitlines()]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(TrainingError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@dataclass
class Finished:
    """An uninterrupted run, and the numbers of the images in each of its batches."""

    directory: Path
    network: AlexNet
    batches: list[list[int]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory = tmp_path_factory.mktemp("finished")
    batches: list[list[int]] = []

    def note_and_augment(canvases: Tensor, *others: Any) -> Tensor:
        batches.append(canvases[:, 0, 0, 0].tolist())
        return augment(canvases, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.augment", note_and_augment)
        network = train(directory)
    return Finished(directory, network, batches)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that Ctrl-C stopped in the middle of its second epoch."""
    directory = tmp_path_factory.mktemp("stopped")
    batches = itertools.count(1)

    def augment_until_the_fifth(*arguments: Any) -> Tensor:
        if next(batches) == 5:
            raise KeyboardInterrupt
        return augment(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.augment", augment_until_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            train(directory)
    return directory


@pytest.fixture
def unfinished(stopped: Path, tmp_path: Path) -> Path:
    """The same for one test; the checkpoint is a link, which a run replaces and never writes to."""
    os.link(stopped / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    return tmp_path


def test_a_run_learns_colours(finished: Finished) -> None:
    log = read_log(finished.directory)
    assert log[-1]["val_top1"] == 1
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    with torch.inference_mode():
        logits, _ = finished.network(torch.from_numpy(HELD_OUT.canvases[:, 5:72, 5:72]))
    assert torch.equal(logits.argmax(1), HELD_OUT.targets)
    assert not finished.network.training


def test_every_epoch_shows_every_image_once_in_another_order(finished: Finished) -> None:
    assert [len(batch) for batch in finished.batches] == [8] * 9
    epochs = [list(itertools.chain(*finished.batches[start : start + 3])) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert int(finished.network.get_buffer("convolutions.norm1.num_batches_tracked")) == 9  # each of them in training mode


def test_the_log_has_a_line_an_epoch_and_the_curve_is_drawn(finished: Finished) -> None:
    log = read_log(finished.directory)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert log[0]["learning_rate"] > log[1]["learning_rate"] > log[2]["learning_rate"] > 0  # the warm-up was half an epoch
    assert all(0 <= line[name] <= 1 for line in log for name in ("train_error", "val_top1", "val_top5"))
    assert 0 < log[0]["elapsed_s"] < log[1]["elapsed_s"] < log[2]["elapsed_s"]
    with Image.open(finished.directory / CURVE_FILE) as curve:
        assert curve.format == "PNG"


def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(finished: Finished, unfinished: Path) -> None:
    assert read_log_of_checkpoint(unfinished) == 1
    resumed = train(unfinished, resume=True)
    for name, tensor in finished.network.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    lines = zip(read_log(unfinished), read_log(finished.directory), strict=True)
    assert all(without_times(one) == without_times(other) for one, other in lines)


def test_an_interruption_says_what_is_kept_and_how_to_go_on(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.augment", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(unfinished, resume=True)
    kept = unfinished / CHECKPOINT_FILE
    assert f"Interrupted: the last finished epoch is kept in {kept}; go on with --resume\n" in capsys.readouterr().err


def test_an_interruption_of_the_first_epoch_promises_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.augment", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert capsys.readouterr().err == "Interrupted: nothing is kept yet\n"
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_has_nothing_left_to_do_when_resumed(finished: Finished, tmp_path: Path) -> None:
    os.link(finished.directory / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.augment", interrupt)
        network = train(tmp_path, resume=True)
    last = "output.fc8.weight"
    assert torch.equal(network.get_parameter(last), finished.network.get_parameter(last))


def test_a_checkpoint_remembers_how_often_the_rate_fell(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, schedule="plateau", patience_epochs=1)
    first, second = Run(recipe, len(COLOURS), TRAIN, CPU), Run(recipe, len(COLOURS), TRAIN, CPU)
    for error in (0.5, 0.5, 0.6):
        first.schedule.end_epoch(error)
    first.save(tmp_path / CHECKPOINT_FILE, "colours", [])
    second.restore(tmp_path / CHECKPOINT_FILE, "colours")
    assert second.schedule.rate(3) == first.schedule.rate(3) == pytest.approx(RECIPE.learning_rate / 100)


def test_a_checkpoint_of_another_recipe_is_refused_with_both_values(unfinished: Path) -> None:
    other = dataclasses.replace(RECIPE, dropout=0.25, epochs=4)
    message = refusal(lambda: train(unfinished, other, resume=True))
    assert "was made with dropout=0.5, epochs=3, not dropout=0.25, epochs=4; pass the first, or remove the file" in message


def test_a_checkpoint_of_other_images_is_refused(unfinished: Path) -> None:
    message = refusal(lambda: train(unfinished, fingerprint="shapes", resume=True))
    assert "was made from other images than these; pass the same DATA, or remove it" in message


@pytest.mark.parametrize("content", ["cut", "rubbish", "another program's"])
def test_a_damaged_checkpoint_is_refused(content: str, stopped: Path, tmp_path: Path) -> None:
    file = tmp_path / CHECKPOINT_FILE
    if content == "cut":
        file.write_bytes((stopped / CHECKPOINT_FILE).read_bytes()[:100_000])
    elif content == "rubbish":
        file.write_bytes(b"rubbish")
    else:
        torch.save({"weights": torch.zeros(3)}, file)
    message = refusal(lambda: train(tmp_path, resume=True))
    assert message == f"{file} is damaged, or no checkpoint of a run; remove it to train from the start"


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(unfinished: Path) -> None:
    wild = dataclasses.replace(RECIPE, learning_rate=100.0)  # the rate may be changed half-way, since it is the remedy
    message = refusal(lambda: train(unfinished, wild, resume=True))
    assert re.match(r"the (validation )?loss became (inf|nan) in epoch [23], step [123], at learning rate \d+\.?\d*; resume from", message)
    assert message.endswith("--resume --set learning_rate=50")
    kept = torch.load(unfinished / CHECKPOINT_FILE, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in kept["network"].values())
    assert len(kept["log"]) == int(message.partition("epoch ")[2][0]) - 1


@pytest.mark.parametrize(("broken", "complaint"), [(1, "the loss became nan in epoch 2, step 2"), (3, "the validation loss became nan")])
def test_weights_that_a_step_broke_are_not_saved(broken: int, complaint: str, unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_sha256(unfinished / CHECKPOINT_FILE)
    step, steps = Run._step, itertools.count(1)

    def step_and_break(run: Run, *arguments: Any) -> tuple[Tensor, Tensor]:
        result = step(run, *arguments)
        if next(steps) == broken:
            torch.nn.init.constant_(run.network.get_parameter("output.fc8.weight"), torch.nan)
        return result

    monkeypatch.setattr("training.trainer.Run._step", step_and_break)
    assert refusal(lambda: train(unfinished, resume=True)).startswith(complaint)
    assert file_sha256(unfinished / CHECKPOINT_FILE) == before


def test_the_plateau_ends_a_run_early(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, schedule="plateau", learning_rate=0.01, patience_epochs=1, epochs=20)
    accuracies = itertools.chain([0.2, 0.4], itertools.repeat(0.6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.Run._step", lambda *_: (torch.zeros(()), torch.zeros(())))
        patch.setattr("training.trainer.Run.validate", lambda *_: Metrics(top1=next(accuracies), top5=1.0, loss=1.0, num_images=6))
        patch.setattr("training.trainer.Run.save", lambda *_: None)
        train(tmp_path, recipe)
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    assert rates == pytest.approx([1e-2] * 4 + [1e-3, 1e-4, 1e-5])  # the fourth epoch is the first that is no better


def test_an_epoch_uses_every_image_once_a_last_batch_of_one_too() -> None:
    train_split = Split(TRAIN.canvases[:9], TRAIN.targets[:9])
    seen: list[list[int]] = []

    def note(_: Run, __: Split, chosen: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        seen.append(chosen.tolist())
        return torch.zeros(()), torch.zeros(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.Run._step", note)
        Run(RECIPE, len(COLOURS), train_split, CPU).epoch(0, train_split, HELD_OUT, elapsed_s=0.0)
    assert [len(batch) for batch in seen] == [8, 1]
    assert sorted(itertools.chain.from_iterable(seen)) == list(range(9))


def test_a_long_gradient_is_scaled_down_to_the_recipes_norm() -> None:
    lengths = {}
    for bound in (0.0, 0.5):
        run = Run(dataclasses.replace(RECIPE, max_gradient_norm=bound), len(COLOURS), TRAIN, CPU)
        run.network.train()
        run._step(TRAIN, torch.arange(8), 0.01, torch.Generator().manual_seed(0))
        gradients = [parameter.grad for parameter in run.network.parameters() if parameter.grad is not None]
        lengths[bound] = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    assert lengths[0.0] > 0.5
    assert lengths[0.5] == pytest.approx(0.5, rel=1e-4)


def test_two_steps_follow_the_papers_update_rule() -> None:
    recipe = dataclasses.replace(paper(), image_size=67, batch_size=8, crop="random", dropout=0.0, learning_rate=0.01)
    run = Run(recipe, len(COLOURS), TRAIN, CPU)
    names = ("convolutions.conv1.weight", "convolutions.conv2.bias", "output.fc8.weight")
    watched = {name: run.network.get_parameter(name) for name in names}
    w = {name: parameter.detach().clone() for name, parameter in watched.items()}
    v = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    for _ in range(2):
        run._step(TRAIN, torch.arange(8), 0.01, torch.Generator().manual_seed(0))
        for name, parameter in watched.items():
            assert parameter.grad is not None
            v[name] = 0.9 * v[name] - 0.0005 * 0.01 * w[name] - 0.01 * parameter.grad  # section 5
            w[name] = w[name] + v[name]
            torch.testing.assert_close(parameter.detach(), w[name], rtol=1e-5, atol=1e-8)


def test_the_modern_recipe_does_not_decay_biases() -> None:
    for recipe, wanted in ((paper(), {1: 0.0005, 2: 0.0005, 4: 0.0005}), (modern(), {1: 0.0, 2: 0.0005, 4: 0.0005})):
        run = Run(dataclasses.replace(recipe, image_size=67), len(COLOURS), TRAIN, CPU)
        decays = {parameter.ndim: group["weight_decay"] for group in run.optimizer.param_groups for parameter in group["params"]}
        assert decays == wanted
        assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(list(run.network.parameters()))


def test_every_epoch_of_every_seed_has_its_own_random_numbers() -> None:
    seeds = [recipe_seed(dataclasses.replace(RECIPE, seed=seed), epoch) for seed in range(20) for epoch in range(50)]
    assert len(set(seeds)) == 1000


def test_the_precision_is_the_recipes_unless_it_is_auto() -> None:
    assert uses_bfloat16(dataclasses.replace(RECIPE, precision="bfloat16"), CPU)
    assert not uses_bfloat16(dataclasses.replace(RECIPE, precision="float32"), CPU)


def interrupt(*_: Any) -> Tensor:
    raise KeyboardInterrupt


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("images_per_s", "elapsed_s")}


def read_log_of_checkpoint(directory: Path) -> int:
    return len(torch.load(directory / CHECKPOINT_FILE, weights_only=True)["log"])
