"""The loop: canvases and a recipe in, a trained network out, with a checkpoint after every epoch.

A run lives in its model directory: `checkpoint.pt` while it lasts, `log.jsonl` with a line an epoch, `learning-curve.png`.
The order of the images, the crops and the flips of an epoch follow from the seed and the epoch's number, the rest of the
randomness (dropout) is in the checkpoint: a resumed run goes on as an uninterrupted one would.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.alexnet import AlexNet, Architecture, initialize
from training.augment import augment
from training.errors import UserError
from training.evaluation import Metrics, evaluate
from training.figures import draw_learning_curve
from training.images import Pixels
from training.model import replacing, write_atomically
from training.progress import Bar, console
from training.recipe import Recipe
from training.schedule import Schedule

CHECKPOINT_FILE, LOG_FILE, CURVE_FILE = "checkpoint.pt", "log.jsonl", "learning-curve.png"


class TrainingError(UserError):
    """A run that cannot start, go on or be resumed."""


@dataclass(frozen=True)
class Split:
    """Canvases (N, R, R, 3) uint8, memory-mapped or not, and their class numbers (N,) int64."""

    canvases: Pixels
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A line of log.jsonl; `train_error` is counted on the augmented images as they pass, both errors are shares 0..1."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_error: float
    val_loss: float
    val_top1: float
    val_top5: float
    images_per_s: float
    elapsed_s: float


def train_network(
    train: Split, held_out: Split, recipe: Recipe, num_classes: int, directory: Path, *, fingerprint: str, resume: bool
) -> AlexNet:
    """Trains until the recipe's end and returns the network, in evaluation mode.

    `fingerprint` names the data; a checkpoint of other data or another recipe is refused with TrainingError, as is a loss that
    is not finite. After KeyboardInterrupt the last epoch's checkpoint is there to be resumed.
    """
    run = Run(recipe, num_classes, train, device=best_device())
    log: list[Epoch] = []
    checkpoint = directory / CHECKPOINT_FILE
    if resume and checkpoint.is_file():
        log = run.restore(checkpoint, fingerprint)
        console.print(f"Resuming after epoch {len(log)} of {recipe.epochs}")
    try:
        while len(log) < recipe.epochs and not run.schedule.has_ended:
            log.append(run.epoch(len(log), train, held_out, elapsed_s=log[-1].elapsed_s if log else 0.0))
            write_atomically(directory / LOG_FILE, "".join(json.dumps(asdict(line)) + "\n" for line in log).encode())
            draw_learning_curve([asdict(line) for line in log], directory / CURVE_FILE)
            run.save(checkpoint, fingerprint, log)
    except KeyboardInterrupt:
        kept = f"the last finished epoch is kept in {checkpoint}; go on with --resume" if checkpoint.is_file() else "nothing is kept yet"
        console.print(f"Interrupted: {kept}")
        raise
    return run.network.eval()


class Run:
    """What changes while a network is trained: its weights, the optimizer's velocities, the schedule and the random state."""

    def __init__(self, recipe: Recipe, num_classes: int, train: Split, device: torch.device):
        self.recipe, self.device = recipe, device
        self.network = AlexNet(architecture_of(recipe, num_classes))
        initialize(self.network, recipe.initialization, recipe.seed)
        self.network.fit_preprocessing(train.canvases)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.network, recipe)
        self.schedule = Schedule(recipe)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(recipe, device))

    def epoch(self, number: int, train: Split, held_out: Split, *, elapsed_s: float) -> Epoch:
        """One pass over the training images, then the validation."""
        recipe, generator = self.recipe, torch.Generator().manual_seed(recipe_seed(self.recipe, number))
        order = torch.randperm(len(train.targets), generator=generator)
        batches = order.split(recipe.batch_size)
        loss_sum = torch.zeros((), device=self.device)
        num_wrong = torch.zeros((), device=self.device)
        num_seen, started = 0, time.perf_counter()
        self.network.train()
        with Bar(f"Epoch {number + 1:>3}/{recipe.epochs}", len(order)) as bar:
            for step, chosen in enumerate(batches):
                rate = self.schedule.rate(number + step / len(batches))
                loss, wrong = self._step(train, chosen, rate, generator)
                if not math.isfinite(float(loss)):
                    raise self._diverged(f"the loss became {float(loss)} in epoch {number + 1}, step {step + 1}", rate)
                loss_sum += loss * len(chosen)
                num_wrong += wrong
                num_seen += len(chosen)
                bar.advance(len(chosen), f"loss {float(loss_sum) / num_seen:.3f}")
            train_s = time.perf_counter() - started
        scores = self.validate(held_out)
        if not math.isfinite(scores.loss):  # the last step's own loss was taken before it broke the weights
            raise self._diverged(f"the validation loss became {scores.loss} in epoch {number + 1}, step {len(batches)}", rate)
        self.schedule.end_epoch(1 - scores.top1)
        line = Epoch(
            epoch=number + 1, learning_rate=rate, train_loss=float(loss_sum) / num_seen, train_error=float(num_wrong) / num_seen,
            val_loss=scores.loss, val_top1=scores.top1, val_top5=scores.top5, images_per_s=num_seen / train_s,
            elapsed_s=elapsed_s + time.perf_counter() - started,
        )  # fmt: skip
        left_s = line.elapsed_s / line.epoch * (recipe.epochs - line.epoch)
        console.print(
            f"Epoch {line.epoch:>3}/{recipe.epochs}  loss {line.train_loss:.3f}  validation {line.val_loss:.3f}, "
            f"top-1 {line.val_top1:.2%}, top-5 {line.val_top5:.2%}  {line.images_per_s:,.0f} images/s  {left_s / 60:.1f} min left"
        )
        return line

    def validate(self, held_out: Split) -> Metrics:
        """The held-out images in the precision of training; the final figures are taken in float32 elsewhere."""
        with self.autocast:
            return evaluate(self.network, held_out.canvases, held_out.targets)

    def _step(self, train: Split, chosen: Tensor, rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One update; returns the batch's mean loss and the number of images it got wrong."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pixels = np.take(train.canvases, chosen.numpy(), axis=0)
        images = augment(torch.from_numpy(pixels).to(self.device, non_blocking=True), self.recipe, generator)
        targets = train.targets[chosen].to(self.device, non_blocking=True)
        with self.autocast:
            logits, _ = self.network(images)
        loss = nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.max_gradient_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.max_gradient_norm)
        self.optimizer.step()
        return loss.detach(), (logits.detach().argmax(1) != targets).sum()

    def _diverged(self, what: str, rate: float) -> TrainingError:
        return TrainingError(
            f"{what}, at learning rate {rate:.4g}; "
            f"resume from the last epoch with a lower one: --resume --set learning_rate={self.recipe.learning_rate / 2:g}"
        )

    def save(self, file: Path, fingerprint: str, log: list[Epoch]) -> None:
        """Writes the checkpoint, atomically."""
        state = {
            "recipe": self.recipe.as_dict(),
            "fingerprint": fingerprint,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "log": [asdict(line) for line in log],
        }
        with replacing(file) as temporary:
            torch.save(state, temporary)

    def restore(self, file: Path, fingerprint: str) -> list[Epoch]:
        """Takes up a checkpoint's state and returns its log; raises TrainingError where it belongs to another run."""
        try:
            state: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
            then, now = state["recipe"], self.recipe.as_dict()
        except Exception as error:  # torch.load raises a different error for each way a file can be damaged
            raise TrainingError(f"{file} is damaged, or no checkpoint of a run; remove it to train from the start") from error
        if state["fingerprint"] != fingerprint:
            raise TrainingError(f"{file} was made from other images than these; pass the same DATA, or remove it to train from the start")
        # What changes neither shapes nor the length of the run may be corrected half-way.
        fixed = [
            name
            for name in now
            if name not in ("learning_rate", "weight_decay", "label_smoothing", "precision") and then.get(name) != now[name]
        ]
        if fixed:
            raise TrainingError(
                f"{file} was made with {', '.join(f'{name}={then.get(name)}' for name in fixed)}, "
                f"not {', '.join(f'{name}={now[name]}' for name in fixed)}; pass the first, or remove the file to train from the start"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        torch.set_rng_state(state["rng"].cpu())
        if state["rng_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng_cuda"].cpu())
        return [Epoch(**line) for line in state["log"]]


def architecture_of(recipe: Recipe, num_classes: int) -> Architecture:
    """The shapes that a recipe asks for."""
    return Architecture(
        layout=recipe.layout, normalization=recipe.normalization, num_classes=num_classes, image_size=recipe.image_size,
        dropout=recipe.dropout, mean=recipe.mean, activation=recipe.activation, pooling=recipe.pooling, num_towers=recipe.num_towers,
        without_convolution=recipe.without_convolution,
    )  # fmt: skip


def best_device() -> torch.device:
    """The GPU where there is one, the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the passes run in bfloat16: as the recipe says, or, for `auto`, where the processor multiplies it natively."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def recipe_seed(recipe: Recipe, epoch: int) -> int:
    """The seed of an epoch's order, crops and flips."""
    return int(np.random.SeedSequence((recipe.seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _optimizer(network: AlexNet, recipe: Recipe) -> torch.optim.Optimizer:
    """Momentum SGD; without `decay_biases`, only the weights of convolutions and full layers are held back."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": recipe.weight_decay if recipe.decay_biases else 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.nesterov)
