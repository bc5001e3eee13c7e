"""One epoch: a pass over the training images, then validation and a line in the log."""

import math
import time
from contextlib import closing

import torch
from torch import Tensor

from training.interruption import StopRequest
from training.learning.checkpoint import DivergenceError
from training.learning.evaluation import Metrics, evaluate
from training.learning.log import Epoch
from training.learning.recipe import Recipe
from training.learning.run import Position, Run
from training.learning.step import read_batches, train_step
from training.progress import Bar, console

CHECKPOINT_INTERVAL_S = 600.0
NUM_EPOCHS_TO_START = 5
"""Warn if the network is still at chance level so many epochs after the warm-up."""
NUM_VALIDATIONS = 50
NUM_STEPS_UNREAD = 25
"""Number of steps between two reads of the loss on a GPU. Each read waits for the GPU."""


def train_epoch(run: Run, stop: StopRequest) -> bool:
    """Train on the images that are left in the current epoch.

    Returns False if `stop` ended the epoch before its last step. During a long epoch, the run is
    saved every ten minutes. Raises DivergenceError.
    """
    recipe, position, num_images = run.plan.recipe, run.position, len(run.plan.train.targets)
    num_steps = math.ceil(num_images / recipe.batch_size)
    started_s, saved_s, earlier_s = time.perf_counter(), time.perf_counter(), position.elapsed_s
    unread: list[Tensor] = []  # (2,) each
    title = f"Epoch {run.epoch + 1:>3}/{recipe.epochs}"
    run.set_training_mode()
    bar = Bar(title, num_images, is_shown=run.workers.is_first)
    with bar, closing(read_batches(run)) as left:
        bar.advance(position.num_seen)
        for batch in left:
            rate = run.schedule.rate(run.epoch + position.step / num_steps)
            unread.append(train_step(run, batch, rate))
            position.step += 1
            position.num_seen += batch.num_images
            position.elapsed_s = earlier_s + time.perf_counter() - started_s
            is_last = position.step == num_steps
            if run.device.type == "cuda" and position.step % NUM_STEPS_UNREAD and not is_last:
                continue
            _add_figures(run, unread)
            mean_loss = position.loss_sum / position.num_seen
            bar.advance(position.num_seen - bar.num_done, f"loss {mean_loss:.3f}")
            if not is_last and run.workers.any(stop.is_made):
                _check_weights(run)
                return False
            if time.perf_counter() - saved_s > CHECKPOINT_INTERVAL_S:
                _check_weights(run)
                run.save()
                saved_s = time.perf_counter()
    return True


def finish_epoch(run: Run) -> None:
    """Validate the network, update the schedule, and add a line to the log. Print this line.

    Some epochs are not validated (`is_validated`). Raises DivergenceError.
    """
    position, started_s = run.position, time.perf_counter()
    scores = validate(run) if is_validated(run.plan.recipe, run.epoch + 1) else None
    if scores and not math.isfinite(scores.loss):
        # The last step broke the weights. Its loss is finite, because it was computed before the
        # step changed the weights.
        raise _divergence(run, f"the validation loss became {scores.loss}", position.step)
    if scores:
        run.schedule.end_epoch(1 - scores.top1)
    else:
        _check_weights(run)
    earlier_s = run.log[-1].elapsed_s if run.log else 0.0
    line = Epoch(
        epoch=run.epoch + 1,
        learning_rate=run.learning_rate,
        train_loss=position.loss_sum / position.num_seen,
        train_error=position.num_wrong / position.num_seen,
        val_loss=scores.loss if scores else None,
        val_top1=scores.top1 if scores else None,
        val_top5=scores.top5 if scores else None,
        images_per_s=position.num_seen / position.elapsed_s,
        elapsed_s=earlier_s + position.elapsed_s + time.perf_counter() - started_s,
    )
    run.log.append(line)
    run.position = Position()
    if run.workers.is_first:
        _print_line(run, line)
        _warn_at_chance(run, line)


def is_validated(recipe: Recipe, epoch: int) -> bool:
    """Whether the network is validated after an epoch, counted from 1. The last one always is.

    The schedule `plateau` needs every epoch. Otherwise, a run of 100 or more epochs is validated 50
    to 75 times. With a few hundred images, a validation after every epoch would take a fifth of the
    time.
    """
    if recipe.schedule == "plateau":
        return True
    return epoch % max(1, recipe.epochs // NUM_VALIDATIONS) == 0 or epoch == recipe.epochs


def validate(run: Run) -> Metrics:
    """Measure the metrics of the network on the held-out images, in the precision of training.

    Each process measures a part of the images. For the finished model, the module `session`
    measures the metrics again in float32.
    """
    held_out, rank, num_processes = run.plan.held_out, run.workers.rank, run.workers.count
    num_images = len(held_out.targets)
    part = slice(num_images * rank // num_processes, num_images * (rank + 1) // num_processes)
    if num_images < num_processes:
        part = slice(0, num_images)
    with run.autocast:
        scores = evaluate(run.whole_network(), held_out.canvases[part], held_out.targets[part])
    means = [scores.top1, scores.top5, scores.loss, 1.0]
    sums = scores.num_images * torch.tensor(means, dtype=torch.float64, device=run.device)  # (4,)
    top1, top5, loss, total = run.workers.mean(sums).tolist()
    return Metrics(top1=top1 / total, top5=top5 / total, loss=loss / total, num_images=num_images)


def _add_figures(run: Run, unread: list[Tensor]) -> None:
    """Add the losses and errors in `unread` to the sums of `run.position`, and empty `unread`.

    This waits for the device. Raises DivergenceError if a loss is infinite or NaN.
    """
    position, batch_size = run.position, run.plan.recipe.batch_size
    figures = run.workers.mean(torch.stack(unread)).tolist()
    for step, (loss, error) in enumerate(figures, position.step - len(unread) + 1):
        if not math.isfinite(loss):
            raise _divergence(run, f"the loss became {loss}", step)
        num_images = min(batch_size, len(run.plan.train.targets) - (step - 1) * batch_size)
        position.loss_sum += loss * num_images
        position.num_wrong += round(error * num_images)
    unread.clear()


def _check_weights(run: Run) -> None:
    """Raise DivergenceError if a weight is infinite or NaN after the last step.

    The loss of this step does not show that, because the loss was computed before the weights
    changed.
    """
    tensors = run.network.state_dict().values()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise _divergence(run, "a weight became infinite or NaN", run.position.step)


def _divergence(run: Run, event: str, step: int) -> DivergenceError:
    """The error for a run that diverged in the current epoch. `step` counts from 1."""
    remedy = (
        "to resume from the last checkpoint with a lower rate, pass --resume"
        if run.plan.checkpoint_file.is_file()
        else "to start again with a lower rate, pass"
    )
    lower_rate = run.plan.recipe.learning_rate / 2
    return DivergenceError(
        f"{event} in epoch {run.epoch + 1}, step {step}, "
        f"at learning rate {run.learning_rate:.4g}; "
        f"{remedy} --set learning_rate={lower_rate:g}"
    )


def _print_line(run: Run, line: Epoch) -> None:
    num_epochs = run.plan.recipe.epochs
    left_s = line.elapsed_s / line.epoch * (num_epochs - line.epoch)
    validation = ""
    if line.val_loss is not None:
        top_k = f"top-1 {line.val_top1:.2%}, top-5 {line.val_top5:.2%}"
        validation = f"validation {line.val_loss:.3f}, {top_k}  "
    console.print(
        f"Epoch {line.epoch:>3}/{num_epochs}  loss {line.train_loss:.3f}  {validation}"
        f"{line.images_per_s:,.0f} images/s  {left_s / 60:.1f} min left"
    )


def _warn_at_chance(run: Run, line: Epoch) -> None:
    """If the loss is still at chance level after the first epochs, print a remedy."""
    chance_loss = math.log(run.plan.architecture.num_classes)
    first_epoch = math.ceil(run.schedule.warmup_epochs) + NUM_EPOCHS_TO_START
    if line.epoch != first_epoch or line.train_loss <= 0.99 * chance_loss:
        return
    remedy = (
        "pass --set initialization=kaiming --set mean=channel to start learning sooner"
        if run.plan.recipe.initialization == "paper"
        else "try another learning_rate"
    )
    console.print(f"The loss is still at chance level ({chance_loss:.3f}); {remedy}")
