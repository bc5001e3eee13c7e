"""One training step: augment a batch, compute the loss and the gradients, and update the weights.

Every random number of a step follows from the recipe's seed, the epoch and the step. If there are
several processes, each process computes the gradients for its own part of the batch, and torch
averages the gradients of the processes.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data.loader import batches, send
from training.learning.augment import Draws, Mixture, augment, mix
from training.learning.optimizer import clip_and_update, drop_old_gradients, set_rate
from training.learning.recipe import Recipe
from training.learning.run import Run

ORDER_STREAM, DROPOUT_STREAM = 2, 3
"""Numbers that separate the random streams of one seed and epoch. Stream 1 is in augment.py."""


@dataclass(frozen=True)
class Batch:
    """This process's part of the images of a step: B images, on the training device."""

    canvases: Tensor
    """(B, R, R, 3) uint8."""
    targets: Tensor
    """(B,) int64."""
    draws: Draws
    """The random numbers of the augmentation, of mixup and of cutmix."""
    dropout_seed: int
    weight: float
    """Factor by which each image's loss is multiplied in this process's loss."""
    num_images: int
    """Number of images in this step, over all processes."""


def read_batches(run: Run) -> Generator[Batch, None, None]:
    """Yield the batches that are left in the current epoch, in order.

    The canvases of the next batches are read in advance.
    """
    recipe, train, epoch, first = run.plan.recipe, run.plan.train, run.epoch, run.position.step
    order = epoch_order(recipe, epoch, train.targets)  # (N,)
    left = order.split(recipe.batch_size)[first:]
    parts = [run.workers.part(len(chosen)) for chosen in left]
    own = [chosen[part.start : part.end] for chosen, part in zip(left, parts, strict=True)]  # (B,)
    with closing(batches(run.train_canvases, own, run.device)) as canvas_batches:
        steps = zip(canvas_batches, left, parts, own, strict=True)
        for step, (canvases, chosen, part, positions) in enumerate(steps, first):
            draws = Draws.of(recipe, len(chosen), epoch, step)
            yield Batch(
                canvases=canvases,
                targets=send(train.targets[positions], run.device),
                draws=draws.part(part.start, part.end),
                dropout_seed=dropout_seed(recipe, epoch, step, run.workers.rank),
                weight=part.weight,
                num_images=len(chosen),
            )


def train_step(run: Run, batch: Batch, rate: float) -> Tensor:
    """Update the network once, at learning rate `rate`.

    Returns the loss and the share of wrong answers, (2,), on the training device. The mean of these
    values over the processes is the mean over the images of the step.
    """
    recipe = run.plan.recipe
    canvases, targets, draws = batch.canvases, batch.targets, batch.draws  # (B, R, R, 3), (B,)
    set_rate(run.optimizer, rate, recipe)
    run.optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(batch.dropout_seed)
    with run.autocast:
        squares = augment(canvases, recipe, draws, _noise_axes(run))  # (B, S, S, 3)
        squares, mixture = mix(squares, targets, draws)  # (B, S, S, 3)
        logits, _ = run.forward(squares)  # (B, num_classes)
    logits = logits.float()
    losses = cross_entropy(logits, targets, mixture, recipe.label_smoothing)  # (B,)
    loss = losses.sum() * batch.weight  # ()
    loss.backward()
    if run.is_frozen:
        drop_old_gradients(run.optimizer)
    clip_and_update(run.optimizer, recipe.max_gradient_norm)
    error = (logits.detach().argmax(1) != targets).sum() * batch.weight  # ()
    return torch.stack((loss.detach(), error))  # (2,)


def cross_entropy(
    logits: Tensor, targets: Tensor, mixture: Mixture | None, label_smoothing: float
) -> Tensor:
    """The loss of each image in nats, (B,).

    After mixup or cutmix, the loss of an image is a weighted mean of two losses: the loss for its
    own class, with the weight `mixture.share`, and the loss for its partner's class.
    """

    def losses_for(classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(
            logits, classes, label_smoothing=label_smoothing, reduction="none"
        )

    if mixture is None:
        return losses_for(targets)
    return torch.lerp(losses_for(mixture.others), losses_for(targets), mixture.share)


def epoch_order(recipe: Recipe, epoch: int, targets: Tensor) -> Tensor:
    """The positions of the training images in the order of an epoch, (N,). `targets` is (N,).

    Without `class_balance`, each image occurs once. With it, images of small classes can occur
    several times, and some images of large classes are left out. Each epoch leaves out different
    images.
    """
    random = np.random.default_rng((recipe.seed, ORDER_STREAM, epoch))
    order = random.permutation(len(targets))
    if not recipe.class_balance:
        return torch.from_numpy(order)
    by_class = order[np.argsort(targets.numpy()[order], kind="stable")]
    sizes = np.bincount(targets.numpy())
    chosen = [
        np.resize(positions, count)
        for positions, count in zip(
            np.split(by_class, np.cumsum(sizes)[:-1]),
            images_per_class(sizes, recipe.class_balance),
            strict=True,
        )
    ]
    return torch.from_numpy(random.permutation(np.concatenate(chosen)))


def images_per_class(sizes: NDArray[np.int64], balance: float) -> NDArray[np.int64]:
    """Number of images of each class in an epoch. `sizes` are the classes' numbers of images.

    The total stays the same. With a balance of 0, every image occurs once. With 1, all classes get
    the same number.
    """
    shares = np.where(sizes > 0, sizes.astype(np.float64) ** (1 - balance), 0)
    ends = np.rint(np.cumsum(shares) / shares.sum() * sizes.sum())
    counts: NDArray[np.int64] = np.diff(ends, prepend=0).astype(np.int64)
    return counts


def dropout_seed(recipe: Recipe, epoch: int, step: int, rank: int) -> int:
    """The seed of the dropout of a step. Each process has its own seed."""
    sequence = np.random.SeedSequence((recipe.seed, DROPOUT_STREAM, epoch, step, rank))
    # torch accepts seeds of 63 bits.
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _noise_axes(run: Run) -> Tensor | None:
    """The axes of the colour noise (3, 3), or None after the last epoch with colour noise."""
    recipe = run.plan.recipe
    has_noise = run.epoch < recipe.colour_noise_until * recipe.epochs
    return run.colour_axes if has_noise else None
