"""A run: what it begins with, what its checkpoint keeps, and which checkpoints it refuses."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.learning.small_plans import (
    RECIPE,
    TRAIN,
    begin,
    make_batch,
    make_plan,
    refusal,
    train,
)
from training.interruption import StopRequest
from training.learning.checkpoint import CHECKPOINT_FILE
from training.learning.distributed import Workers
from training.learning.epoch import finish_epoch, train_epoch
from training.learning.recipe import Recipe, modern, paper
from training.learning.run import Forward, Position, Run
from training.learning.step import train_step

pytestmark = pytest.mark.usefixtures("narrow")
TOWERS = ("cpu", "cpu")


def restore(directory: Path, recipe: Recipe = RECIPE) -> Run:
    return Run.restore(make_plan(directory, recipe), Workers(), directory / CHECKPOINT_FILE)


def test_a_run_begins_with_the_weights_of_its_seed_and_the_statistics_of_its_images() -> None:
    first, again, other = (
        begin(dataclasses.replace(RECIPE, seed=seed)).network.state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["output.fc8.weight"], other["output.fc8.weight"])
    central = torch.from_numpy(TRAIN.canvases[:, 5:72, 5:72]).double()
    torch.testing.assert_close(first["mean"].flatten().double(), central.mean((0, 1, 2)))


def test_frozen_layers_and_their_batch_statistics_stay_until_they_are_trained() -> None:
    recipe = dataclasses.replace(
        RECIPE, normalization="batch", frozen_epochs=1, last_layer="random", epochs=2
    )
    run = begin(recipe, initial={}, old_layers="hidden")
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    changed = []
    for _ in range(2):
        assert train_epoch(run, StopRequest())
        finish_epoch(run)
        state = run.network.state_dict()
        changed.append({name for name in state if not torch.equal(state[name], before[name])})
    assert changed[0] == {"output.fc8.weight", "output.fc8.bias"}
    assert {"convolutions.conv1.weight", "convolutions.norm1.running_mean"} <= changed[1]


def test_a_run_begins_with_the_initial_weights_if_there_are_any() -> None:
    weights = {"output.fc8.bias": torch.tensor([1.0, 2.0, 3.0])}
    network = begin(initial=weights).network
    assert network.get_parameter("output.fc8.bias").tolist() == [1.0, 2.0, 3.0]
    other = "convolutions.conv1.weight"
    assert torch.equal(network.get_parameter(other), begin().network.get_parameter(other))


def test_a_run_has_all_its_attributes_however_it_is_made(unfinished: Path) -> None:
    begun, restored = begin(), restore(unfinished)
    assert list(vars(begun)) == list(vars(restored))
    assert (begun.epoch, begun.position) == (0, Position())
    assert (restored.epoch, restored.position.step, restored.position.num_seen) == (1, 2, 16)


def test_a_restored_run_saves_the_checkpoint_that_it_was_restored_from(unfinished: Path) -> None:
    before = torch.load(unfinished / CHECKPOINT_FILE, weights_only=True)
    restore(unfinished).save()
    after = torch.load(unfinished / CHECKPOINT_FILE, weights_only=True)
    assert list(after) == list(before)
    for name in ("recipe", "fingerprint", "schedule", "position", "log", "is_tower_parallel"):
        assert after[name] == before[name]
    assert torch.equal(after["colour_axes"], before["colour_axes"])
    for name, tensor in before["network"].items():
        assert torch.equal(after["network"][name], tensor), name
    for number, values in before["optimizer"]["state"].items():
        velocity = after["optimizer"]["state"][number]["momentum_buffer"]
        assert torch.equal(velocity, values["momentum_buffer"]), number


def test_only_the_first_process_saves(tmp_path: Path) -> None:
    run = begin(directory=tmp_path)
    run.workers = Workers(rank=1, count=2)
    run.save()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_remembers_how_often_the_rate_fell(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, schedule="plateau", patience_epochs=1)
    first = begin(recipe, tmp_path)
    for error in (0.5, 0.5, 0.6):
        first.schedule.end_epoch(error)
    first.save()
    second = restore(tmp_path, recipe)
    assert second.schedule.rate(3) == first.schedule.rate(3)
    assert second.schedule.rate(3) == pytest.approx(RECIPE.learning_rate / 100)


def test_a_weight_decay_that_is_changed_half_way_counts_from_there_on(unfinished: Path) -> None:
    run = restore(unfinished, dataclasses.replace(RECIPE, weight_decay=0.25))
    decays = [group["weight_decay"] for group in run.optimizer.param_groups]
    assert decays == [0.25, 0.0]  # biases do not decay in this recipe


def test_a_checkpoint_of_another_recipe_is_refused_with_both_values(unfinished: Path) -> None:
    other = dataclasses.replace(RECIPE, dropout=0.25, epochs=4)
    message = refusal(lambda: train(unfinished, other, resume=True))
    assert (
        "was made with dropout=0.5, epochs=3, not dropout=0.25, epochs=4; "
        f"pass the values of {unfinished / CHECKPOINT_FILE}, or remove it"
    ) in message


def test_a_checkpoint_of_other_images_is_refused(unfinished: Path) -> None:
    message = refusal(lambda: train(unfinished, fingerprint="shapes", resume=True))
    assert (
        "was made from other images or other initial weights; "
        "pass the same DATA and --init, or remove the file"
    ) in message


def test_a_checkpoint_is_resumed_with_tower_devices_only_if_it_began_so(
    unfinished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert "was trained without --tower-devices; resume it the same way" in refusal(
        lambda: train(unfinished, resume=True, tower_devices=TOWERS)
    )
    other = tmp_path_factory.mktemp("towers")
    begin(directory=other, tower_devices=TOWERS).save()
    assert "was trained with --tower-devices; resume it the same way" in refusal(
        lambda: train(other, resume=True)
    )


def test_the_whole_network_has_the_weights_that_the_towers_have_learned() -> None:
    recipe = dataclasses.replace(RECIPE, dropout=0.0)
    names = ("convolutions.conv2.weight", "hidden.fc6.bias", "output.fc8.weight")
    weights = []
    for towers in ((), TOWERS):
        run = begin(recipe, tower_devices=towers)
        before = {name: run.whole_network().get_parameter(name).clone() for name in names}
        train_step(run, make_batch(run), rate=0.01)
        after = run.whole_network().state_dict()
        assert all(not torch.equal(after[name], before[name]) for name in names)
        weights.append({name: after[name].clone() for name in names})
    for name in names:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5)


def test_the_modern_recipe_does_not_decay_biases() -> None:
    for recipe, expected in (
        (paper(), {1: 0.0005, 2: 0.0005, 4: 0.0005}),
        (modern(), {1: 0.0, 2: 0.0005, 4: 0.0005}),
    ):
        run = begin(dataclasses.replace(recipe, image_size=67))
        groups = run.optimizer.param_groups
        decays = {
            parameter.ndim: group["weight_decay"]
            for group in groups
            for parameter in group["params"]
        }
        assert decays == expected
        num_parameters = sum(len(group["params"]) for group in groups)
        assert num_parameters == len(list(run.network.parameters()))


def test_only_batches_of_the_full_size_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_sizes: list[int] = []

    def compile_network(forward: Forward, *, dynamic: bool) -> Forward:
        assert dynamic is False

        def compiled(squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            compiled_sizes.append(len(squares))
            return forward(squares)

        return compiled

    monkeypatch.setattr("torch.compile", compile_network)
    run = begin(dataclasses.replace(RECIPE, compilation="on", batch_size=4))
    for size in (4, 3, 4, 1):
        logits, _ = run.forward(torch.zeros(size, 67, 67, 3, dtype=torch.uint8))
        assert len(logits) == size
    assert compiled_sizes == [4, 4]
