"""The loop on coloured canvases: it learns, it goes on where it was stopped, and it says why it cannot."""

import dataclasses
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from training.files import file_sha256
from training.interruption import StopRequest
from training.learning.augment import Draws, augment
from training.learning.checkpoint import CHECKPOINT_FILE, TrainingError
from training.learning.distributed import Workers
from training.learning.evaluation import Metrics
from training.learning.log import CURVE_FILE, LOG_FILE
from training.learning.optimizer import set_rate
from training.learning.recipe import Recipe, modern, paper
from training.learning.trainer import (
    Plan,
    Run,
    Split,
    architecture_of,
    compiles,
    epoch_order,
    step_seed,
    train_network,
    uses_bfloat16,
)
from training.network.alexnet import AlexNet

COLOURS = ((30, 60, 220), (30, 180, 60), (220, 40, 30))
RECIPE = dataclasses.replace(
    modern(),
    image_size=67,
    epochs=3,
    batch_size=8,
    learning_rate=0.002,
    warmup_epochs=0.5,
    precision="float32",
    seed=3,
    max_gradient_norm=0.0,
    dropout=0.5,
    colour_noise=0.1,
    mixup=0.2,
    cutmix=0.2,
)
"""With everything that is random in a step."""
CPU = torch.device("cpu")


def colours(num_images: int, seed: int) -> Split:
    """Canvases of one noisy colour each, taking turns; the corner's red value is the image's number."""
    targets = np.arange(num_images) % len(COLOURS)
    noise = np.random.default_rng(seed).normal(0, 12, (num_images, 77, 77, 3))
    canvases = np.clip(np.array(COLOURS)[targets][:, None, None] + noise, 0, 255).astype(np.uint8)
    canvases[:, 0, 0, 0] = np.arange(num_images)
    return Split(canvases, torch.from_numpy(targets))


TRAIN, HELD_OUT = colours(24, seed=0), colours(6, seed=1)


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """Full layers of 64 units in place of 4096, which are most of what a step and a checkpoint cost: the rest is all there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.alexnet.NUM_FEATURES", 64)
        yield


def plan(directory: Path, recipe: Recipe = RECIPE, **others: Any) -> Plan:
    fields: dict[str, Any] = {"train": TRAIN, "held_out": HELD_OUT, "fingerprint": "colours"}
    return Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, len(COLOURS)),
        directory=directory,
        **fields | others,
    )


def train(
    directory: Path, recipe: Recipe = RECIPE, *, resume: bool = False, **others: Any
) -> AlexNet:
    return train_network(plan(directory, recipe, **others), Workers(), resume=resume)


def begun(recipe: Recipe = RECIPE, **others: Any) -> Run:
    run = Run(plan(Path(), recipe, **others), Workers())
    run.begin()
    run.network.train()
    return run


def one_step(run: Run, rate: float, number: int = 0) -> None:
    """An update with the images of a step of an epoch that keeps their order."""
    size = run.recipe.batch_size
    chosen = slice(number * size, (number + 1) * size)
    run._step(
        torch.from_numpy(TRAIN.canvases[chosen]),
        TRAIN.targets[chosen],
        Draws.of(run.recipe, size, 0, number),
        1 / size,
        rate,
    )


def read_log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / LOG_FILE).read_text().splitlines()]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(TrainingError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def call_in_step(number: int, action: Callable[[Run], object]) -> pytest.MonkeyPatch:
    """From now on calls `action` at the end of the `number`th step, counted from 1; until the patch is undone."""
    step, numbers = Run._step, itertools.count(1)

    def step_and_act(run: Run, *arguments: Any) -> Tensor:
        figures = step(run, *arguments)
        if next(numbers) == number:
            action(run)
        return figures

    patch = pytest.MonkeyPatch()
    patch.setattr("training.learning.trainer.Run._step", step_and_act)
    return patch


def train_until(
    directory: Path,
    number: int,
    action: Callable[[Run], object],
    recipe: Recipe = RECIPE,
    *,
    resume: bool = False,
) -> None:
    """A run that `action`, called in a step, interrupts."""
    patch = call_in_step(number, action)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(directory, recipe, resume=resume)
    finally:
        patch.undo()


def press_ctrl_c(_: Run) -> None:
    signal.raise_signal(signal.SIGINT)


def press_ctrl_c_twice(_: Run) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


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
        patch.setattr("training.learning.trainer.augment", note_and_augment)
        network = train(directory)
    return Finished(directory, network, batches)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that Ctrl-C stopped after the second of the three steps of its second epoch."""
    directory = tmp_path_factory.mktemp("stopped")
    train_until(directory, 5, press_ctrl_c)
    return directory


@pytest.fixture
def unfinished(stopped: Path, tmp_path: Path) -> Path:
    """The same for one test; the checkpoint is a link, which a run replaces and never writes to."""
    os.link(stopped / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    return tmp_path


def read_position(directory: Path) -> tuple[int, int]:
    """The number of finished epochs in the checkpoint, and of steps in the epoch at hand."""
    state = torch.load(directory / CHECKPOINT_FILE, weights_only=True)
    return len(state["log"]), state["position"]["step"]


def assert_is_as_finished(network: AlexNet, directory: Path, finished: Finished) -> None:
    """Bit for bit: the weights, and the log but for its times."""
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


def test_every_epoch_shows_every_image_once_in_another_order(finished: Finished) -> None:
    assert [len(batch) for batch in finished.batches] == [8] * 9
    epochs = [list(itertools.chain(*finished.batches[start : start + 3])) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert (
        int(finished.network.get_buffer("convolutions.norm1.num_batches_tracked")) == 9
    )  # each of them in training mode


def test_the_log_has_a_line_an_epoch_and_the_curve_is_drawn(finished: Finished) -> None:
    log = read_log(finished.directory)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert (
        log[0]["learning_rate"] > log[1]["learning_rate"] > log[2]["learning_rate"] > 0
    )  # the warm-up was half an epoch
    assert all(
        0 <= line[name] <= 1 for line in log for name in ("train_error", "val_top1", "val_top5")
    )
    assert 0 < log[0]["elapsed_s"] < log[1]["elapsed_s"] < log[2]["elapsed_s"]
    with Image.open(finished.directory / CURVE_FILE) as curve:
        assert curve.format == "PNG"


def test_a_run_resumed_in_mid_epoch_ends_bit_for_bit_as_an_uninterrupted_one(
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
    train_until(tmp_path, 1, press_ctrl_c)
    assert read_position(tmp_path) == (0, 1)
    train_until(tmp_path, 2, lambda _: signal.raise_signal(signal.SIGTERM), resume=True)
    assert read_position(tmp_path) == (
        1,
        0,
    )  # after an epoch's last step the epoch is finished first
    train_until(tmp_path, 4, press_ctrl_c, resume=True)
    assert read_position(tmp_path) == (2, 1)
    assert_is_as_finished(train(tmp_path, resume=True), tmp_path, finished)


def test_an_interruption_says_what_is_kept_and_how_to_go_on(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_until(unfinished, 1, press_ctrl_c, resume=True)
    assert (
        f"Interrupted: the run is kept in {unfinished / CHECKPOINT_FILE}; go on with --resume\n"
        in capsys.readouterr().err
    )


def test_a_second_ctrl_c_interrupts_at_once_and_leaves_the_checkpoint(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_sha256(unfinished / CHECKPOINT_FILE)
    train_until(unfinished, 1, press_ctrl_c_twice, resume=True)
    assert file_sha256(unfinished / CHECKPOINT_FILE) == before
    assert "go on with --resume" in capsys.readouterr().err


def test_a_second_ctrl_c_in_the_first_epoch_promises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_until(tmp_path, 1, press_ctrl_c_twice)
    assert capsys.readouterr().err == "Interrupted: nothing is kept yet\n"
    assert list(tmp_path.iterdir()) == []


def test_a_long_epoch_is_saved_from_time_to_time(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut, for which two Ctrl-C stand here, costs no more than the steps since."""
    monkeypatch.setattr("training.learning.trainer.CHECKPOINT_INTERVAL_S", 0.0)
    train_until(tmp_path, 3, press_ctrl_c_twice)
    assert read_position(tmp_path) == (0, 2)
    train_until_validation(tmp_path)
    assert read_position(tmp_path) == (0, 3)  # all steps are done, but the epoch is not finished
    monkeypatch.undo()
    assert_is_as_finished(train(tmp_path, resume=True), tmp_path, finished)


def train_until_validation(directory: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.trainer.Run.validate", press_ctrl_c_twice)
        with pytest.raises(KeyboardInterrupt):
            train(directory, resume=True)


def test_a_resumed_run_counts_the_time_before_it_was_stopped(unfinished: Path) -> None:
    state = torch.load(unfinished / CHECKPOINT_FILE, weights_only=True)
    before_s = state["log"][-1]["elapsed_s"] + state["position"]["elapsed_s"]
    started_s = time.perf_counter()
    train(unfinished, resume=True)
    log = read_log(unfinished)
    assert (
        before_s
        < log[1]["elapsed_s"]
        < log[2]["elapsed_s"]
        < before_s + time.perf_counter() - started_s
    )


def test_a_finished_run_has_nothing_left_to_do_when_resumed(
    finished: Finished, tmp_path: Path
) -> None:
    os.link(finished.directory / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.trainer.Run._step", press_ctrl_c_twice)
        network = train(tmp_path, resume=True)
    last = "output.fc8.weight"
    assert torch.equal(network.get_parameter(last), finished.network.get_parameter(last))


def test_a_checkpoint_remembers_how_often_the_rate_fell(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, schedule="plateau", patience_epochs=1)
    first, second = begun(recipe), Run(plan(tmp_path, recipe), Workers())
    for error in (0.5, 0.5, 0.6):
        first.schedule.end_epoch(error)
    first.save(tmp_path / CHECKPOINT_FILE)
    second.restore(tmp_path / CHECKPOINT_FILE)
    assert (
        second.schedule.rate(3)
        == first.schedule.rate(3)
        == pytest.approx(RECIPE.learning_rate / 100)
    )


def test_a_weight_decay_that_is_changed_half_way_counts_from_there_on(unfinished: Path) -> None:
    run = Run(plan(unfinished, dataclasses.replace(RECIPE, weight_decay=0.25)), Workers())
    run.restore(unfinished / CHECKPOINT_FILE)
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [
        0.25,
        0.0,
    ]  # biases do not decay in this recipe


def test_a_checkpoint_of_another_recipe_is_refused_with_both_values(unfinished: Path) -> None:
    other = dataclasses.replace(RECIPE, dropout=0.25, epochs=4)
    message = refusal(lambda: train(unfinished, other, resume=True))
    assert (
        "was made with dropout=0.5, epochs=3, not dropout=0.25, epochs=4; pass the first, or remove the file"
        in message
    )


def test_a_checkpoint_of_other_images_is_refused(unfinished: Path) -> None:
    message = refusal(lambda: train(unfinished, fingerprint="shapes", resume=True))
    assert (
        "was made from other images or on other weights than these; pass the same DATA and --init, or remove it"
        in message
    )


def test_a_checkpoint_goes_on_with_tower_devices_just_if_it_began_so(
    unfinished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    towers = ("cpu", "cpu")
    assert "was trained without --tower-devices; resume it so" in refusal(
        lambda: train(unfinished, resume=True, tower_devices=towers)
    )
    other = tmp_path_factory.mktemp("towers")
    begun(tower_devices=towers).save(other / CHECKPOINT_FILE)
    assert "was trained with --tower-devices; resume it so" in refusal(
        lambda: train(other, resume=True)
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(unfinished: Path) -> None:
    wild = dataclasses.replace(
        RECIPE, learning_rate=100.0
    )  # the rate may be changed half-way, since it is the remedy
    message = refusal(lambda: train(unfinished, wild, resume=True))
    assert re.match(
        r"the (validation )?loss became (inf|nan) in epoch [23], step [123], at learning rate \d+\.?\d*; resume from",
        message,
    )
    assert message.endswith(
        "resume from the last checkpoint with a lower one: --resume --set learning_rate=50"
    )
    assert_is_finite(unfinished)
    assert read_position(unfinished)[0] in (1, int(message.partition("epoch ")[2][0]) - 1)


def test_a_run_that_diverges_before_its_first_checkpoint_is_to_be_started_again(
    tmp_path: Path,
) -> None:
    message = refusal(lambda: train(tmp_path, dataclasses.replace(RECIPE, learning_rate=100.0)))
    assert message.endswith("start again with a lower one: --set learning_rate=50")


def break_weights(run: Run) -> None:
    torch.nn.init.constant_(run.network.get_parameter("output.fc8.weight"), torch.nan)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (1, "the validation loss became nan in epoch 2, step 3, at learning rate 0.001"),
        (2, "the loss became nan in epoch 3, step 2, at learning rate 0.0003"),
    ],
)
def test_weights_that_a_step_broke_are_not_saved(
    broken: int, complaint: str, unfinished: Path
) -> None:
    patch = call_in_step(broken, break_weights)
    message = refusal(lambda: train(unfinished, resume=True))
    patch.undo()
    assert message.startswith(complaint)
    assert message.endswith(
        "resume from the last checkpoint with a lower one: --resume --set learning_rate=0.001"
    )
    assert_is_finite(unfinished)
    assert read_position(unfinished) == ((1, 2) if broken == 1 else (2, 0))


@pytest.mark.parametrize("saved", ["from time to time", "for Ctrl-C"])
def test_weights_that_a_step_broke_are_not_saved_in_mid_epoch(
    saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_and_save(run: Run) -> None:
        break_weights(run)
        if saved == "for Ctrl-C":
            press_ctrl_c(run)

    train_until(tmp_path, 1, press_ctrl_c)
    monkeypatch.setattr(
        "training.learning.trainer.CHECKPOINT_INTERVAL_S",
        0.0 if saved == "from time to time" else 600.0,
    )
    patch = call_in_step(1, break_and_save)
    with pytest.raises((TrainingError, KeyboardInterrupt)):
        train(tmp_path, resume=True)
    patch.undo()
    assert_is_finite(tmp_path)


def assert_is_finite(directory: Path) -> None:
    kept = torch.load(directory / CHECKPOINT_FILE, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in kept["network"].values())


def test_the_colour_noise_stops_after_its_share_of_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_coloured: list[bool] = []

    def note_and_augment(
        canvases: Tensor, recipe: Recipe, draws: Draws, colour_axes: Tensor | None
    ) -> Tensor:
        is_coloured.append(colour_axes is not None)
        return augment(canvases, recipe, draws, colour_axes)

    monkeypatch.setattr("training.learning.trainer.augment", note_and_augment)
    train(tmp_path, dataclasses.replace(RECIPE, batch_size=24, colour_noise_until=2 / 3))
    assert is_coloured == [True, True, False]


@pytest.mark.parametrize(
    ("rate", "initialization", "expected"),
    [
        (1e-6, "paper", "--set initialization=kaiming"),
        (1e-6, "kaiming", "try another learning_rate"),
        (0.002, "kaiming", None),
    ],
)
def test_a_network_that_has_learnt_nothing_after_five_epochs_is_told_of(
    rate: float,
    initialization: Literal["paper", "kaiming"],
    expected: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calm = dataclasses.replace(
        RECIPE, epochs=5, mixup=0.0, cutmix=0.0, dropout=0.0, label_smoothing=0.0
    )
    train(tmp_path, dataclasses.replace(calm, learning_rate=rate, initialization=initialization))
    told = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "still that of chance (1.099)" in line
    ]
    assert [expected in line for line in told] == [True] if expected else not told


def test_the_plateau_ends_a_run_early(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, schedule="plateau", learning_rate=0.01, patience_epochs=1, epochs=20
    )
    accuracies = itertools.chain([0.2, 0.4], itertools.repeat(0.6))

    def step(
        run: Run, canvases: Tensor, targets: Tensor, draws: Draws, weight: float, rate: float
    ) -> Tensor:
        set_rate(run.optimizer, rate, run.recipe)
        return torch.zeros(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.trainer.Run._step", step)
        patch.setattr(
            "training.learning.trainer.Run.validate",
            lambda *_: Metrics(top1=next(accuracies), top5=1.0, loss=1.0, num_images=6),
        )
        patch.setattr("training.learning.trainer.Run.save", lambda *_: None)
        train(tmp_path, recipe)
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    assert rates == pytest.approx(
        [1e-2] * 4 + [1e-3, 1e-4, 1e-5]
    )  # the fourth epoch is the first that is no better


def test_an_epoch_uses_every_image_once_a_last_batch_of_one_too() -> None:
    run = begun(train=Split(TRAIN.canvases[:9], TRAIN.targets[:9]))
    seen: list[list[int]] = []

    def note(_: Run, canvases: Tensor, *others: Any) -> Tensor:
        seen.append(canvases[:, 0, 0, 0].tolist())
        return torch.zeros(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.trainer.Run._step", note)
        assert run.train_epoch(StopRequest(), lambda: None)
    assert [len(batch) for batch in seen] == [8, 1]
    assert sorted(itertools.chain.from_iterable(seen)) == list(range(9))


def test_a_long_gradient_is_scaled_down_to_the_recipes_norm() -> None:
    lengths = {}
    for bound in (0.0, 0.5):
        run = begun(dataclasses.replace(RECIPE, max_gradient_norm=bound))
        one_step(run, 0.01)
        gradients = [
            parameter.grad for parameter in run.network.parameters() if parameter.grad is not None
        ]
        lengths[bound] = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    assert lengths[0.0] > 0.5
    assert lengths[0.5] == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    "rates",
    [(0.01, 0.01), (0.01, 0.001, 0.001), (0.0, 0.005, 0.01)],
    ids=["constant", "plateau", "warm-up"],
)
def test_steps_follow_the_papers_update_rule_even_while_the_rate_changes(
    rates: Sequence[float],
) -> None:
    run = begun(
        dataclasses.replace(paper(), image_size=67, batch_size=8, dropout=0.0, learning_rate=0.01)
    )
    names = ("convolutions.conv1.weight", "convolutions.conv2.bias", "output.fc8.weight")
    watched = {name: run.network.get_parameter(name) for name in names}
    w = {name: parameter.detach().clone() for name, parameter in watched.items()}
    v = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    for number, rate in enumerate(rates):
        one_step(run, rate, number)
        for name, parameter in watched.items():
            assert parameter.grad is not None
            v[name] = 0.9 * v[name] - 0.0005 * rate * w[name] - rate * parameter.grad  # section 5
            w[name] = w[name] + v[name]
            torch.testing.assert_close(parameter.detach(), w[name], rtol=1e-5, atol=1e-7)


def test_the_modern_recipe_does_not_decay_biases() -> None:
    for recipe, wanted in (
        (paper(), {1: 0.0005, 2: 0.0005, 4: 0.0005}),
        (modern(), {1: 0.0, 2: 0.0005, 4: 0.0005}),
    ):
        run = begun(dataclasses.replace(recipe, image_size=67))
        decays = {
            parameter.ndim: group["weight_decay"]
            for group in run.optimizer.param_groups
            for parameter in group["params"]
        }
        assert decays == wanted
        assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(
            list(run.network.parameters())
        )


def test_every_step_of_every_process_has_its_own_dropout() -> None:
    recipes = [dataclasses.replace(RECIPE, seed=seed) for seed in range(4)]
    seeds = [
        step_seed(recipe, epoch, step, rank)
        for recipe in recipes
        for epoch in range(5)
        for step in range(10)
        for rank in range(5)
    ]
    assert len(set(seeds)) == 1000


def test_every_epoch_of_every_seed_has_its_own_order() -> None:
    recipes = [dataclasses.replace(RECIPE, seed=seed) for seed in range(5)]
    orders = [
        tuple(epoch_order(recipe, epoch, 100).tolist()) for recipe in recipes for epoch in range(20)
    ]
    assert len(set(orders)) == 100
    assert all(sorted(order) == list(range(100)) for order in orders)


def test_the_precision_is_the_recipes_unless_it_is_auto() -> None:
    assert uses_bfloat16(dataclasses.replace(RECIPE, precision="bfloat16"), CPU)
    assert not uses_bfloat16(dataclasses.replace(RECIPE, precision="float32"), CPU)


def test_the_network_is_compiled_as_the_recipe_says_and_else_on_a_gpu() -> None:
    compilations = {
        (setting, device): compiles(
            dataclasses.replace(RECIPE, compilation=setting), torch.device(device)
        )
        for setting in ("off", "on", "auto")
        for device in ("cpu", "cuda")
    }
    assert {case for case, is_compiled in compilations.items() if is_compiled} == {
        ("on", "cpu"),
        ("on", "cuda"),
        ("auto", "cuda"),
    }
