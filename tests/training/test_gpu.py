"""Training on a GPU, with the precision and the compilation that a GPU uses."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from training.learning.augment import Draws, augment
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate
from training.learning.plan import Plan, Split, architecture_of
from training.learning.recipe import Recipe, modern, paper
from training.learning.run import Run
from training.learning.step import read_batches, train_step
from training.learning.trainer import train_network
from training.network.alexnet import AlexNet
from training.network.towers import TowerParallel

COLOURS = ((30, 60, 220), (30, 180, 60), (220, 40, 30))
RECIPE = dataclasses.replace(
    modern(),
    image_size=67,
    epochs=3,
    batch_size=8,
    learning_rate=0.002,
    warmup_epochs=0.5,
    colour_noise=0.1,
)

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    yield torch.device("cuda", 0)
    torch.cuda.empty_cache()


def colours(num_images: int, seed: int) -> Split:
    targets = np.arange(num_images) % len(COLOURS)
    noise = np.random.default_rng(seed).normal(0, 12, (num_images, 77, 77, 3))
    return Split(
        np.clip(np.array(COLOURS)[targets][:, None, None] + noise, 0, 255).astype(np.uint8),
        torch.from_numpy(targets),
    )


def plan(directory: Path, recipe: Recipe, tower_devices: tuple[str, ...] = ()) -> Plan:
    return Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, len(COLOURS)),
        train=colours(24, seed=0),
        held_out=colours(6, seed=1),
        directory=directory,
        fingerprint="colours",
        tower_devices=tower_devices,
    )


def test_a_network_trained_on_the_gpu_gives_the_same_answers_on_the_cpu(
    tmp_path: Path, gpu: torch.device
) -> None:
    network = train_network(plan(tmp_path, RECIPE), Workers(device=gpu), resume=False)
    held_out = colours(6, seed=1)
    on_gpu = evaluate(network, held_out.canvases, held_out.targets)
    assert on_gpu.top1 == 1
    on_cpu = evaluate(network.cpu(), held_out.canvases, held_out.targets)
    assert on_cpu.loss == pytest.approx(on_gpu.loss, abs=1e-2)


def test_a_network_with_one_tower_per_device_learns(tmp_path: Path, gpu: torch.device) -> None:
    recipe = dataclasses.replace(RECIPE, compilation="off", precision="float32")
    devices = ("cuda:0", f"cuda:{torch.cuda.device_count() - 1}")
    network = train_network(plan(tmp_path, recipe, devices), Workers(device=gpu), resume=False)
    held_out = colours(6, seed=1)
    assert evaluate(network, held_out.canvases, held_out.targets).top1 == 1


def test_towers_on_gpus_equal_the_grouped_network(gpu: torch.device) -> None:
    recipe = dataclasses.replace(paper(), image_size=67, dropout=0.0)
    network = AlexNet(architecture_of(recipe, 5)).eval()
    towers = TowerParallel(network, ("cuda:0", f"cuda:{torch.cuda.device_count() - 1}")).eval()
    images = torch.randint(0, 256, (4, 67, 67, 3), dtype=torch.uint8)
    with torch.inference_mode():
        # The tolerance is wide because convolutions on the GPU use TF32.
        for theirs, ours in zip(towers(images), network(images), strict=True):
            torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("recipe", [paper(), modern()])
def test_augmentation_on_the_gpu_equals_the_cpus(recipe: Recipe, gpu: torch.device) -> None:
    recipe = dataclasses.replace(recipe, image_size=67, colour_noise=0.1)
    canvases = torch.randint(0, 256, (8, 77, 77, 3), dtype=torch.uint8)
    draws, axes = Draws.of(recipe, 8, epoch=0, step=0), 10 * torch.eye(3)
    on_cpu = augment(canvases, recipe, draws, axes)
    on_gpu = augment(canvases.to(gpu), recipe, draws, axes.to(gpu))
    torch.testing.assert_close(on_gpu.cpu().float(), on_cpu.float(), rtol=1e-2, atol=1.0)


def test_a_training_step_never_waits_for_the_gpu(tmp_path: Path, gpu: torch.device) -> None:
    recipe = dataclasses.replace(RECIPE, compilation="off")
    run = Run.begin(plan(tmp_path, recipe), Workers(device=gpu))
    run.network.train()
    batches = [batch for _ in range(2) for batch in read_batches(run)]
    train_step(run, batches[0], rate=0.001)  # the first step loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            train_step(run, batch, rate=0.001)
        for _ in read_batches(run):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
