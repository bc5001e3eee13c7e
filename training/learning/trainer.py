"""The loop: canvases and a recipe in, a trained network out.

A run lives in its model directory: `checkpoint.pt` while it lasts, `log.jsonl` with a line an epoch, `learning-curve.png`.
Every random number follows from the recipe's seed, the epoch and the step, so a resumed run goes on exactly as an uninterrupted
one would, from whichever step its checkpoint was taken after.
"""

import ctypes
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from training.data.images import Pixels
from training.data.loader import batches
from training.devices import best_device
from training.interruption import StopRequest, stop_on_signal
from training.learning.augment import Draws, Mixture, augment, mix
from training.learning.checkpoint import (
    CHECKPOINT_FILE,
    DivergenceError,
    TrainingError,
    damaged,
    read_checkpoint,
    write_checkpoint,
)
from training.learning.distributed import Workers, synchronize_batch_norms
from training.learning.evaluation import Metrics, evaluate
from training.learning.log import Epoch, TensorBoard, write_log
from training.learning.optimizer import optimizer_of, set_rate, update
from training.learning.recipe import Recipe
from training.learning.schedule import Schedule
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.preprocessing import measure_pixels
from training.network.towers import TowerParallel
from training.progress import Bar, console

CHECKPOINT_INTERVAL_S = 600.0
NUM_EPOCHS_TO_START = 5
"""A network that has learnt nothing by then is told of."""
NUM_STEPS_UNREAD = 25
"""Steps between two looks at a GPU's loss: each look waits for the GPU."""
ORDER_STREAM, DROPOUT_STREAM = 2, 3
"""Set the random numbers of a seed and an epoch apart by what they are for; `training.learning.augment` has the first."""
SHAPING_SETTINGS = (
    "layout",
    "normalization",
    "image_size",
    "dropout",
    "mean",
    "activation",
    "pooling",
    "num_towers",
    "kernels",
    "without_convolution",
    "has_sixth_convolution",
)
"""The settings of a recipe that an architecture has too."""


@dataclass(frozen=True)
class Split:
    """Canvases (N, R, R, 3) uint8, memory-mapped or not, and their class numbers (N,) int64."""

    canvases: Pixels
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, on what, and where it is kept."""

    recipe: Recipe
    architecture: Architecture
    train: Split
    held_out: Split
    directory: Path
    fingerprint: str
    """Names the images and the initial weights; a checkpoint with another one is refused."""
    initial: Mapping[str, Tensor] | None = None
    """Weights to begin with in place of random ones; what is missing is drawn."""
    tower_devices: Sequence[str] = ()
    """Two devices, to train one tower on each."""
    has_tensorboard: bool = False


def train_network(plan: Plan, workers: Workers | None = None, *, resume: bool) -> AlexNet:
    """Trains until the recipe's end and returns the network, in evaluation mode.

    Raises TrainingError for a checkpoint of another run, and for a loss that is not finite. Ctrl-C and SIGTERM save a checkpoint
    after the step at hand and raise KeyboardInterrupt.
    """
    workers = workers or Workers(device=best_device())
    run = Run(plan, workers)
    checkpoint = plan.directory / CHECKPOINT_FILE
    if resume and checkpoint.is_file():
        run.restore(checkpoint)
        step = f", step {run.position.step}" if run.position.step else ""
        _say(workers, f"Resuming after epoch {len(run.log)} of {plan.recipe.epochs}{step}")
    else:
        run.begin()
    keep_freed_memory()
    try:
        with stop_on_signal() as stop:
            _train_epochs(run, checkpoint, stop)
    except KeyboardInterrupt:
        kept = (
            f"the run is kept in {checkpoint}; go on with --resume"
            if checkpoint.is_file()
            else "nothing is kept yet"
        )
        _say(workers, f"Interrupted: {kept}")
        raise
    return run.network.eval()


def _train_epochs(run: "Run", checkpoint: Path, stop: StopRequest) -> None:
    plan, is_first = run.plan, run.workers.is_first

    def save() -> None:
        if is_first:
            run.save(checkpoint)

    events = (
        TensorBoard(plan.directory, num_epochs_done=len(run.log))
        if plan.has_tensorboard and is_first
        else None
    )
    with closing(events) if events else nullcontext():
        while len(run.log) < plan.recipe.epochs and not run.schedule.has_ended:
            if not run.train_epoch(stop, save):
                save()
                run.workers.wait()
                raise KeyboardInterrupt
            run.end_epoch()
            if is_first:
                write_log(run.log, plan.directory)
            if events:
                events.write(run.log[-1])
            save()
            if run.workers.any(stop.is_made):
                raise KeyboardInterrupt


@dataclass
class Position:
    """How far the epoch at hand has come."""

    step: int = 0
    loss_sum: float = 0.0
    num_wrong: int = 0
    num_seen: int = 0
    elapsed_s: float = 0.0


class Run:
    """What changes while a network is trained: its weights, the optimizer's velocities, the schedule, and how far it has come."""

    def __init__(self, plan: Plan, workers: Workers):
        self.plan, self.recipe, self.workers = plan, plan.recipe, workers
        self.device = torch.device(plan.tower_devices[0]) if plan.tower_devices else workers.device
        self.network = AlexNet(plan.architecture)
        self.colour_axes = torch.zeros(3, 3)
        self.schedule = Schedule(plan.recipe)
        self.position = Position()
        self.log: list[Epoch] = []
        self.autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bfloat16(self.recipe, self.device)
        )

    def begin(self) -> None:
        """Draws the weights, or takes the initial ones, and measures the training images."""
        initialize(self.network, self.recipe.initialization, self.recipe.seed)
        statistics = measure_pixels(self.plan.train.canvases, self.recipe.image_size, self.device)
        self.network.set_preprocessing(statistics)
        self.colour_axes = torch.from_numpy(statistics.colour_axes).float()
        if self.plan.initial:
            self.network.load_state_dict(self.plan.initial, strict=False)
        self._prepare()

    def _prepare(self) -> None:
        """Puts the network where it is trained, as it is trained: on one device, a tower a device, or in several processes."""
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.colour_axes = self.colour_axes.to(self.device)
        self.towers = (
            TowerParallel(self.network, self.plan.tower_devices)
            if self.plan.tower_devices
            else None
        )
        self.trained: AlexNet | TowerParallel = self.towers or self.network
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor]] = self.trained
        if self.workers.count > 1:
            synchronize_batch_norms(self.network)
            self.forward = nn.parallel.DistributedDataParallel(
                self.network, broadcast_buffers=False
            )  # every process has the same
        if compiles(self.recipe, self.device, self.workers.count) and not self.towers:
            self.forward = torch.compile(self.forward)
        self.optimizer = optimizer_of(self.trained, self.recipe)

    def train_epoch(self, stop: StopRequest, save: Callable[[], None]) -> bool:
        """What is left of a pass over the training images; False where a stop was asked for before its last step.

        A long epoch is saved every ten minutes.
        """
        recipe, train, position, epoch = self.recipe, self.plan.train, self.position, len(self.log)
        steps = epoch_order(recipe, epoch, len(train.targets)).split(recipe.batch_size)
        parts = [self.workers.part(len(chosen)) for chosen in steps]
        own = [chosen[part.start : part.end] for chosen, part in zip(steps, parts, strict=True)]
        started_s, saved_s, earlier_s = time.perf_counter(), time.perf_counter(), position.elapsed_s
        unread: list[Tensor] = []
        self.trained.train()
        with Bar(
            f"Epoch {epoch + 1:>3}/{recipe.epochs}",
            len(train.targets),
            is_shown=self.workers.is_first,
        ) as bar:
            bar.advance(position.num_seen)
            for canvases in batches(train.canvases, own[position.step :], self.device):
                part, num_images = parts[position.step], len(steps[position.step])
                draws = Draws.of(recipe, num_images, epoch, position.step).part(
                    part.start, part.end
                )
                rate = self.schedule.rate(epoch + position.step / len(steps))
                unread.append(
                    self._step(
                        canvases, train.targets[own[position.step]], draws, part.weight, rate
                    )
                )
                position.step += 1
                position.num_seen += num_images
                position.elapsed_s = earlier_s + time.perf_counter() - started_s
                if (
                    self.device.type == "cuda"
                    and position.step % NUM_STEPS_UNREAD
                    and position.step < len(steps)
                ):
                    continue
                self._read(unread, rate)
                bar.advance(
                    position.num_seen - bar.num_done,
                    f"loss {position.loss_sum / position.num_seen:.3f}",
                )
                if position.step < len(steps) and self.workers.any(stop.is_made):
                    self._check_weights(rate)
                    return False
                if time.perf_counter() - saved_s > CHECKPOINT_INTERVAL_S:
                    self._check_weights(rate)
                    save()
                    saved_s = time.perf_counter()
        return True

    def _step(
        self, canvases: Tensor, targets: Tensor, draws: Draws, weight: float, rate: float
    ) -> Tensor:
        """One update with this process's part of a batch, each image of which counts `weight` in the process's mean.

        Returns the part's mean loss and share of errors, (2,), whose means over the processes are the batch's.
        """
        recipe, targets = self.recipe, targets.to(self.device, non_blocking=True)
        set_rate(self.optimizer, rate, recipe)
        torch.manual_seed(
            step_seed(recipe, len(self.log), self.position.step, self.workers.rank)
        )  # dropout's
        with self.autocast:
            noise_ends = recipe.colour_noise_until * recipe.epochs
            colour_axes = self.colour_axes if len(self.log) < noise_ends else None
            squares, mixture = mix(augment(canvases, recipe, draws, colour_axes), targets, draws)
            logits, _ = self.forward(squares)
        logits = logits.float()
        losses = cross_entropy(logits, targets, mixture, recipe.label_smoothing)
        loss = losses.sum() * weight
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        update(self.optimizer, recipe.max_gradient_norm)
        error = (logits.detach().argmax(1) != targets).sum() * weight
        return torch.stack((loss.detach(), error))

    def _read(self, unread: list[Tensor], rate: float) -> None:
        """Adds the figures of the last steps to the epoch's, which waits for the device; raises TrainingError where one is not finite."""
        position, epoch, batch_size = self.position, len(self.log), self.recipe.batch_size
        figures = self.workers.mean(torch.stack(unread)).tolist()
        for step, (loss, error) in enumerate(figures, position.step - len(unread) + 1):
            if not math.isfinite(loss):
                raise self._diverged(
                    f"the loss became {loss} in epoch {epoch + 1}, step {step}", rate
                )
            count = min(batch_size, len(self.plan.train.targets) - (step - 1) * batch_size)
            position.loss_sum += loss * count
            position.num_wrong += round(error * count)
        unread.clear()

    def end_epoch(self) -> None:
        """Validates, and adds a line to the log; raises TrainingError where the last step broke the weights."""
        position, epoch, recipe = self.position, len(self.log), self.recipe
        started_s = time.perf_counter()
        scores = self.validate()
        rate = float(self.optimizer.param_groups[0]["lr"])
        if not math.isfinite(
            scores.loss
        ):  # the last step's own loss was taken before it broke the weights
            raise self._diverged(
                f"the validation loss became {scores.loss} in epoch {epoch + 1}, step {position.step}",
                rate,
            )
        self.schedule.end_epoch(1 - scores.top1)
        earlier_s = self.log[-1].elapsed_s if self.log else 0.0
        line = Epoch(
            epoch=epoch + 1,
            learning_rate=rate,
            train_loss=position.loss_sum / position.num_seen,
            train_error=position.num_wrong / position.num_seen,
            val_loss=scores.loss,
            val_top1=scores.top1,
            val_top5=scores.top5,
            images_per_s=position.num_seen / position.elapsed_s,
            elapsed_s=earlier_s + position.elapsed_s + time.perf_counter() - started_s,
        )
        self.log.append(line)
        self.position = Position()
        left_s = line.elapsed_s / line.epoch * (recipe.epochs - line.epoch)
        _say(
            self.workers,
            f"Epoch {line.epoch:>3}/{recipe.epochs}  loss {line.train_loss:.3f}  validation {line.val_loss:.3f}, "
            f"top-1 {line.val_top1:.2%}, top-5 {line.val_top5:.2%}  {line.images_per_s:,.0f} images/s  {left_s / 60:.1f} min left",
        )
        chance_loss = math.log(self.plan.architecture.num_classes)
        if line.epoch == NUM_EPOCHS_TO_START and line.train_loss > 0.99 * chance_loss:
            is_paper = recipe.initialization == "paper"
            remedy = (
                "--set initialization=kaiming --set mean=channel starts sooner"
                if is_paper
                else "try another learning_rate"
            )
            _say(self.workers, f"The loss is still that of chance ({chance_loss:.3f}); {remedy}")

    def validate(self) -> Metrics:
        """The held-out images in the precision of training, a part in each process; the final figures are taken in float32 elsewhere."""
        if self.towers:
            self.towers.write_back(self.network)
        held_out, workers = self.plan.held_out, self.workers
        count = len(held_out.targets)
        start, end = (
            (count * rank // workers.count for rank in (workers.rank, workers.rank + 1))
            if count >= workers.count
            else (0, count)
        )
        with self.autocast:
            part = evaluate(self.network, held_out.canvases[start:end], held_out.targets[start:end])
        sums = (
            torch.tensor(
                [part.top1, part.top5, part.loss, 1.0], dtype=torch.float64, device=self.device
            )
            * part.num_images
        )
        top1, top5, loss, total = workers.mean(sums).tolist()
        return Metrics(top1=top1 / total, top5=top5 / total, loss=loss / total, num_images=count)

    def _check_weights(self, rate: float) -> None:
        """Raises DivergenceError where the last step broke the weights, which its own loss, taken before, does not show."""
        if not all(
            bool(torch.isfinite(tensor).all()) for tensor in self.trained.state_dict().values()
        ):
            raise self._diverged(
                f"a weight became infinite or nan in epoch {len(self.log) + 1}, step {self.position.step}",
                rate,
            )

    def _diverged(self, what: str, rate: float) -> DivergenceError:
        has_checkpoint = (self.plan.directory / CHECKPOINT_FILE).is_file()
        again = (
            "resume from the last checkpoint with a lower one: --resume"
            if has_checkpoint
            else "start again with a lower one:"
        )
        return DivergenceError(
            f"{what}, at learning rate {rate:.4g}; {again} --set learning_rate={self.recipe.learning_rate / 2:g}"
        )

    def save(self, file: Path) -> None:
        """Writes the checkpoint, atomically."""
        if self.towers:
            self.towers.write_back(self.network)
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "colour_axes": self.colour_axes,
            "position": asdict(self.position),
            "log": [asdict(line) for line in self.log],
            "is_tower_parallel": self.towers is not None,
        }
        write_checkpoint(file, state, recipe=self.recipe, fingerprint=self.plan.fingerprint)

    def restore(self, file: Path) -> None:
        """Takes up a checkpoint's state; raises TrainingError where it belongs to another run."""
        state = read_checkpoint(file, recipe=self.recipe, fingerprint=self.plan.fingerprint)
        try:
            is_tower_parallel = state["is_tower_parallel"]
            if is_tower_parallel == bool(self.plan.tower_devices):
                self._take_up(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(file) from error
        if is_tower_parallel != bool(self.plan.tower_devices):
            raise TrainingError(
                f"{file} was trained {'with' if is_tower_parallel else 'without'} --tower-devices; resume it so"
            )

    def _take_up(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.colour_axes = state["colour_axes"]
        self._prepare()
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, decay in zip(self.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay  # the recipe's, which may be corrected half-way
        self.schedule.restore(state["schedule"])
        self.position = Position(**state["position"])
        self.log = [Epoch(**line) for line in state["log"]]


def architecture_of(recipe: Recipe, num_classes: int) -> Architecture:
    """The shapes that a recipe asks for."""
    return Architecture(
        num_classes=num_classes, **{name: getattr(recipe, name) for name in SHAPING_SETTINGS}
    )


def uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the passes run in bfloat16: as the recipe says, or, for `auto`, where the processor multiplies it natively."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compiles(recipe: Recipe, device: torch.device, num_processes: int = 1) -> bool:
    """Whether the network is compiled: as the recipe says, or, for `auto`, on one GPU. (On several it has not been tried.)"""
    return recipe.compilation == "on" or (
        recipe.compilation == "auto" and device.type == "cuda" and num_processes == 1
    )


def resolved(plan: Plan, workers: Workers) -> Recipe:
    """The plan's recipe with what `auto` stood for on the devices at hand."""
    recipe = plan.recipe
    is_compiled = compiles(recipe, workers.device, workers.count) and not plan.tower_devices
    precision: Literal["bfloat16", "float32"] = (
        "bfloat16" if uses_bfloat16(recipe, workers.device) else "float32"
    )
    return replace(recipe, precision=precision, compilation="on" if is_compiled else "off")


def epoch_order(recipe: Recipe, epoch: int, num_images: int) -> Tensor:
    """The numbers of the images (num_images,) in the order of an epoch."""
    return torch.from_numpy(
        np.random.default_rng((recipe.seed, ORDER_STREAM, epoch)).permutation(num_images)
    )


def step_seed(recipe: Recipe, epoch: int, step: int, rank: int) -> int:
    """The seed of a step's dropout, another one for each process."""
    return int(
        np.random.SeedSequence((recipe.seed, DROPOUT_STREAM, epoch, step, rank)).generate_state(
            1, np.uint64
        )[0]
        >> np.uint64(1)
    )


def cross_entropy(
    logits: Tensor, targets: Tensor, mixture: Mixture | None, label_smoothing: float
) -> Tensor:
    """Each image's loss (B,), shared between its own class and its partner's where the batch is mixed."""
    own = nn.functional.cross_entropy(
        logits, targets, label_smoothing=label_smoothing, reduction="none"
    )
    if mixture is None:
        return own
    others = nn.functional.cross_entropy(
        logits, mixture.others, label_smoothing=label_smoothing, reduction="none"
    )
    return torch.lerp(others, own, mixture.share)


def keep_freed_memory() -> None:
    """Tells glibc to keep what torch frees for the next step: to fault the same pages in again is slow."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _say(workers: Workers, text: str) -> None:
    if workers.is_first:
        console.print(text)
