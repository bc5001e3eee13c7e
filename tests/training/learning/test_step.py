"""A training step: its loss, its update, and its random numbers."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tests.training.learning.small_plans import (
    COLOURS,
    RECIPE,
    TRAIN,
    begin,
    make_batch,
    train,
)
from training.learning.augment import Draws, Mixture, augment
from training.learning.distributed import Workers
from training.learning.recipe import Recipe, modern, paper
from training.learning.step import (
    cross_entropy,
    dropout_seed,
    epoch_order,
    images_per_class,
    read_batches,
    train_step,
)

pytestmark = pytest.mark.usefixtures("narrow")
Floats = npt.NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def label_distributions(
    own: Sequence[int], others: Sequence[int], share: float, smoothing: float, num_classes: int
) -> Floats:
    """The expected answers of the network, (B, C): label smoothing and mixing as their papers print
    them."""
    mixed = share * np.eye(num_classes)[list(own)] + (1 - share) * np.eye(num_classes)[list(others)]
    return np.asarray((1 - smoothing) * mixed + smoothing / num_classes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.0])
def test_the_loss_is_that_of_the_smoothed_and_mixed_labels(share: float, smoothing: float) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (4, 5))
    own, others = [0, 1, 2, 3], [1, 0, 3, 4]
    labels = label_distributions(own, others, share, smoothing, 5)
    expected = -(labels * np.log(softmax(logits))).sum(1)
    mixture = Mixture(share, torch.tensor(others))
    losses = cross_entropy(torch.from_numpy(logits), torch.tensor(own), mixture, smoothing)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-6)


def test_the_loss_of_a_batch_without_mixing_is_that_of_the_smoothed_labels() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (4, 5))
    own = [0, 1, 2, 4]
    labels = label_distributions(own, own, 1.0, 0.1, 5)
    expected = -(labels * np.log(softmax(logits))).sum(1)
    losses = cross_entropy(torch.from_numpy(logits), torch.tensor(own), None, 0.1)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "none"])
def test_a_step_of_the_default_recipe_follows_the_smoothed_and_mixed_labels(mixing: str) -> None:
    recipe = dataclasses.replace(modern(), image_size=67, batch_size=8, max_gradient_norm=0.0)
    run = begin(recipe)
    draws = dataclasses.replace(Draws.of(recipe, 8, 0, 0), blended=None, pasted=None)
    share = 1.0
    if mixing == "mixup":
        draws, share = dataclasses.replace(draws, blended=0.7), 0.7
    elif mixing == "cutmix":
        # The rectangle has 34 x 34 of the 67 x 67 pixels. Its edges, 33 - 17 and 33 + 17, are whole
        # numbers, so no rounding error can move them.
        share = 1 - (34 / 67) ** 2
        draws = dataclasses.replace(draws, pasted=(share, 33 / 67, 33 / 67))
    batch = make_batch(run, draws=draws)
    noted: list[Tensor] = []

    def note_and_forward(squares: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = run.network(squares)
        noted.append(logits.detach())
        return logits, features

    run.forward = note_and_forward
    loss, error = train_step(run, batch, rate=0.01).tolist()
    own = batch.targets.tolist()
    others = [own[position ^ 1] for position in range(8)]  # the neighbour in a pair
    logits = noted[0].double().numpy()
    labels = label_distributions(own, others, share, recipe.label_smoothing, len(COLOURS))
    assert recipe.label_smoothing == 0.1
    assert loss == pytest.approx(-(labels * np.log(softmax(logits))).sum() / 8, rel=1e-3)
    assert error == pytest.approx((logits.argmax(1) != own).mean())
    bias = run.network.get_parameter("output.fc8.bias")
    assert bias.grad is not None
    np.testing.assert_allclose(bias.grad.numpy(), (softmax(logits) - labels).mean(0), atol=5e-3)


def test_a_long_gradient_is_scaled_down_to_the_recipes_norm() -> None:
    lengths = {}
    for bound in (0.0, 0.5):
        run = begin(dataclasses.replace(RECIPE, max_gradient_norm=bound))
        train_step(run, make_batch(run), rate=0.01)
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
    run = begin(
        dataclasses.replace(paper(), image_size=67, batch_size=8, dropout=0.0, learning_rate=0.01)
    )
    names = ("convolutions.conv1.weight", "convolutions.conv2.bias", "output.fc8.weight")
    watched = {name: run.network.get_parameter(name) for name in names}
    w = {name: parameter.detach().clone() for name, parameter in watched.items()}
    v = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    for number, rate in enumerate(rates):
        train_step(run, make_batch(run, number), rate)
        for name, parameter in watched.items():
            assert parameter.grad is not None
            v[name] = 0.9 * v[name] - 0.0005 * rate * w[name] - rate * parameter.grad  # section 5
            w[name] = w[name] + v[name]
            torch.testing.assert_close(parameter.detach(), w[name], rtol=1e-5, atol=1e-7)


def test_the_batches_left_in_an_epoch_are_the_same_from_any_step_on() -> None:
    run = begin()
    whole = list(read_batches(run))
    assert [batch.canvases[:, 0, 0, 0].tolist() for batch in whole] == [
        chosen.tolist() for chosen in epoch_order(RECIPE, 0, TRAIN.targets).split(8)
    ]
    run.position.step = 2
    (last,) = read_batches(run)
    for field in dataclasses.fields(last):
        ours, theirs = getattr(last, field.name), getattr(whole[2], field.name)
        if isinstance(ours, Tensor):
            assert torch.equal(ours, theirs)
        elif isinstance(ours, Draws):
            assert torch.equal(ours.uniform, theirs.uniform)
            assert torch.equal(ours.normal, theirs.normal)
            assert (ours.blended, ours.pasted) == (theirs.blended, theirs.pasted)
        else:
            assert ours == theirs


def test_the_processes_share_each_batch() -> None:
    run = begin()
    whole = list(read_batches(run))
    parts = []
    for rank in range(2):
        run.workers = Workers(rank, 2)
        parts.append(list(read_batches(run)))
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.canvases for share in shares]), batch.canvases)
        assert torch.equal(torch.cat([share.targets for share in shares]), batch.targets)
        uniform = torch.cat([share.draws.uniform for share in shares])
        assert torch.equal(uniform, batch.draws.uniform)
        assert {share.num_images for share in shares} == {batch.num_images}
        assert len({share.dropout_seed for share in shares}) == 2


def test_targets_are_those_of_the_canvases() -> None:
    for batch in read_batches(begin()):
        positions = batch.canvases[:, 0, 0, 0].long()
        assert torch.equal(batch.targets, TRAIN.targets[positions])


def test_the_colour_noise_stops_after_its_share_of_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_coloured: list[bool] = []

    def note_and_augment(
        canvases: Tensor, recipe: Recipe, draws: Draws, colour_axes: Tensor | None
    ) -> Tensor:
        is_coloured.append(colour_axes is not None)
        return augment(canvases, recipe, draws, colour_axes)

    monkeypatch.setattr("training.learning.step.augment", note_and_augment)
    train(tmp_path, dataclasses.replace(RECIPE, batch_size=24, colour_noise_until=2 / 3))
    assert is_coloured == [True, True, False]


def test_the_same_dropout_seed_drops_the_same_outputs() -> None:
    recipe = dataclasses.replace(RECIPE, dropout=0.5)
    losses = []
    for seed in (1, 1, 2):
        run = begin(recipe)
        losses.append(train_step(run, make_batch(run, dropout_seed=seed), rate=0.0)[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_every_step_of_every_process_has_its_own_dropout() -> None:
    recipes = [dataclasses.replace(RECIPE, seed=seed) for seed in range(4)]
    numbers: Any = itertools.product(recipes, range(5), range(10), range(5))
    seeds = {dropout_seed(recipe, epoch, step, rank) for recipe, epoch, step, rank in numbers}
    assert len(seeds) == 1000


def test_every_epoch_of_every_seed_has_its_own_order() -> None:
    recipes = [dataclasses.replace(RECIPE, seed=seed) for seed in range(5)]
    targets = torch.arange(100) % 3
    orders = [
        tuple(epoch_order(recipe, epoch, targets).tolist())
        for recipe in recipes
        for epoch in range(20)
    ]
    assert len(set(orders)) == 100
    assert all(sorted(order) == list(range(100)) for order in orders)


@pytest.mark.parametrize(
    ("balance", "expected"), [(0.0, [90, 0, 10]), (0.5, [75, 0, 25]), (1.0, [50, 0, 50])]
)
def test_small_classes_occur_more_often_if_the_classes_are_balanced(
    balance: float, expected: list[int]
) -> None:
    assert images_per_class(np.array([90, 0, 10]), balance).tolist() == expected
    targets = torch.tensor([0] * 90 + [2] * 10)[torch.randperm(100)]
    recipe = dataclasses.replace(RECIPE, class_balance=balance)
    orders = [epoch_order(recipe, epoch, targets) for epoch in range(30)]
    for order in orders:
        assert torch.bincount(targets[order]).tolist() == expected
        times = torch.bincount(order, minlength=100)
        for name in (0, 2):  # the images of a class occur equally often, up to one
            of_class = times[targets == name]
            assert of_class.max() - of_class.min() <= 1
    # What is left out in one epoch is used in another.
    assert set(torch.cat(orders).tolist()) == set(range(100))


def test_equally_large_classes_need_no_balancing() -> None:
    targets = torch.arange(40) % 4
    recipe = dataclasses.replace(RECIPE, class_balance=0.7)
    assert sorted(epoch_order(recipe, 0, targets).tolist()) == list(range(40))
    sizes = np.random.default_rng(0).integers(1, 1000, 50)
    for balance in (0.0, 0.3, 1.0):
        assert images_per_class(sizes, balance).sum() == sizes.sum()
