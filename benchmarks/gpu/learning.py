"""Train a network on real images for a few epochs, and compare the time with the CPU's."""

import dataclasses
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.images import read_images
from benchmarks.gpu.job import Job, Skipped
from benchmarks.training_loops import begin_run, epoch_steps
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate
from training.learning.log import LOG_FILE, read_log
from training.learning.plan import Plan, architecture_of
from training.learning.recipe import Recipe, modern
from training.learning.trainer import train_network

GOAL_TOP1 = 0.75
"""Accuracy of 20 epochs on Imagenette at 128 pixels. On a CPU, the original images give 0.795
(benchmarks/results/imagenette_20_epochs.json). The packed images are compressed more."""


def run(job: Job) -> None:
    job.measure("training", lambda: _train(job))
    job.measure("speed_of_the_cpu", lambda: _cpu_speed(job))


def _train(job: Job) -> Mapping[str, Any]:
    if job.data is None and not job.is_small:
        raise Skipped("needs --data with real images")
    recipe = _recipe(job)
    images = read_images(job, recipe.image_size)
    directory = job.workdir / "learning"
    directory.mkdir(exist_ok=True)
    plan = Plan(
        recipe=recipe,
        architecture=architecture_of(recipe, int(images.train.targets.max()) + 1),
        train=images.train,
        held_out=images.held_out,
        directory=directory,
        fingerprint="gpu benchmark",
    )
    started_s = perf_counter()
    network = train_network(plan, Workers(device=job.device), resume=False)
    job.wait()
    training_s = perf_counter() - started_s
    plan.checkpoint_file.unlink(missing_ok=True)
    scores = evaluate(network, images.held_out.canvases, images.held_out.targets)
    num_seen = recipe.epochs * len(images.train.targets)
    figures = {
        "epochs": recipe.epochs,
        "num_training_images": len(images.train.targets),
        "num_held_out": scores.num_images,
        "top1": round(scores.top1, 4),
        "goal_top1": GOAL_TOP1,
        "training_s": round(training_s, 1),
        "images_per_s_with_compilation_and_checkpoints": round(num_seen / training_s, 1),
        "images_per_s_in_the_last_epoch": round(read_log(directory / LOG_FILE)[-1]["images_per_s"]),
    }
    if scores.top1 < GOAL_TOP1 and not job.is_small:
        figures["error"] = "the accuracy is below the goal"
    return figures


def _cpu_speed(job: Job) -> Mapping[str, Any]:
    """Images per second of the same loop on this machine's CPU, and the time of all epochs."""
    recipe = dataclasses.replace(_recipe(job), compilation="off")
    images = read_images(job, recipe.image_size)
    training = begin_run(recipe, images.train, job.workdir, torch.device("cpu"))
    steps, num_steps = epoch_steps(training), job.size(1, 12)
    steps(1)
    started_s = perf_counter()
    steps(num_steps)
    images_per_s = num_steps * recipe.batch_size / (perf_counter() - started_s)
    num_seen = recipe.epochs * len(images.train.targets)
    return {
        "images_per_s": round(images_per_s, 1),
        "training_s_at_this_speed": round(num_seen / images_per_s, 1),
    }


def _recipe(job: Job) -> Recipe:
    return dataclasses.replace(
        modern(),
        image_size=job.size(67, 128),
        epochs=job.size(1, 20),
        batch_size=job.size(8, 128),
        warmup_epochs=job.size(0.0, 2.0),
    )
