"""The training loop. It turns a plan into a trained network.

A run writes these files to its model directory: `checkpoint.pt` (removed at the end), `log.jsonl`
(one line per epoch) and `learning-curve.png`. A resumed run starts at the step after its checkpoint
and gives the same result as an uninterrupted run.
"""

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import torch

from training.devices import best_device
from training.interruption import StopRequest, stop_on_signal
from training.learning.distributed import Workers
from training.learning.epoch import finish_epoch, train_epoch
from training.learning.log import TensorBoard, draw_log, write_log
from training.learning.plan import Plan
from training.learning.run import Run
from training.network.alexnet import AlexNet
from training.progress import console

SAVE_INTERVAL_S = 20.0
"""At the end of an epoch, the run is saved if the last save is more than this time ago.

The run is not saved after every epoch, because a checkpoint has 490 MB. With a few hundred images,
writing a checkpoint can take longer than an epoch. The end of the last epoch is always saved.
"""


def train_network(plan: Plan, workers: Workers | None = None, *, resume: bool) -> AlexNet:
    """Train a network to the end of the recipe. Return the network in evaluation mode.

    Raises TrainingError if the checkpoint belongs to another run. Raises DivergenceError if the
    loss becomes infinite or NaN. On Ctrl-C or SIGTERM, the current step is finished, a checkpoint
    is saved and KeyboardInterrupt is raised.
    """
    workers = workers or Workers(device=best_device())
    checkpoint = plan.checkpoint_file
    if resume and checkpoint.is_file():
        run = Run.restore(plan, workers, checkpoint)
        step = f", step {run.position.step}" if run.position.step else ""
        _print(workers, f"Resuming after epoch {run.epoch} of {plan.recipe.epochs}{step}")
    else:
        run = Run.begin(plan, workers)
    keep_freed_memory()
    try:
        with stop_on_signal() as stop, tf32_products():
            _train_epochs(run, stop)
    except KeyboardInterrupt:
        saved = "nothing is saved yet"
        if checkpoint.is_file():
            saved = f"the run is saved in {checkpoint}; to continue it, pass --resume"
        _print(workers, f"Interrupted: {saved}")
        raise
    return run.whole_network().eval()


def _train_epochs(run: Run, stop: StopRequest) -> None:
    plan, workers, saved_s = run.plan, run.workers, time.perf_counter()
    events = None
    if plan.has_tensorboard and workers.is_first:
        events = TensorBoard(plan.directory, num_epochs_done=run.epoch)
    with closing(events) if events else nullcontext():
        while run.epoch < plan.recipe.epochs and not run.schedule.has_ended:
            if not train_epoch(run, stop):
                _save(run)
                workers.wait()
                raise KeyboardInterrupt
            finish_epoch(run)
            if workers.is_first:
                write_log(run.log, plan.directory)
            if events:
                events.write(run.log[-1])
            is_stopped = workers.any(stop.is_made)
            is_last = run.epoch == plan.recipe.epochs or run.schedule.has_ended
            if is_stopped or is_last or time.perf_counter() - saved_s > SAVE_INTERVAL_S:
                _save(run)
                saved_s = time.perf_counter()
            if is_stopped:
                raise KeyboardInterrupt


def _save(run: Run) -> None:
    """Draw the learning curve of the finished epochs, and write the checkpoint."""
    if run.workers.is_first and run.log:
        draw_log(run.log, run.plan.directory)
    run.save()


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory that torch frees.

    By default, glibc returns freed memory to the system. Every step would then cause page faults
    for the same memory again, and that is slow.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


@contextmanager
def tf32_products() -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 in the `with` block.

    By default, torch allows TF32 for convolutions but not for matrix products. TF32 keeps 10 of the
    23 fraction bits of each factor and adds in float32. Training tolerates this precision, and the
    products are several times faster (Stosic and Micikevicius 2021). The features of an index are
    computed without TF32.
    """
    products = torch.backends.cuda.matmul
    was_allowed, products.allow_tf32 = products.allow_tf32, True
    try:
        yield
    finally:
        products.allow_tf32 = was_allowed


def _print(workers: Workers, text: str) -> None:
    if workers.is_first:
        console.print(text)
