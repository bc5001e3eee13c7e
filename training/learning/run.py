"""A run: a network in training, and everything that changes from step to step."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.data.loader import keep_on_device
from training.learning.checkpoint import (
    TrainingError,
    damaged,
    read_checkpoint,
    write_checkpoint,
)
from training.learning.distributed import Workers, synchronize_batch_norms
from training.learning.log import Epoch
from training.learning.optimizer import build_optimizer, load_optimizer
from training.learning.plan import Plan, executed_recipe, training_device
from training.learning.schedule import Schedule
from training.network.alexnet import AlexNet, initialize
from training.network.preprocessing import measure_pixels
from training.network.towers import TowerParallel

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Squares (B, S, S, 3) -> logits (B, num_classes) and features (B, 4096)."""


@dataclass
class Position:
    """Number of finished steps in the current epoch, and sums over the images of these steps."""

    step: int = 0
    loss_sum: float = 0.0
    """Sum of the images' losses, in nats."""
    num_wrong: int = 0
    num_seen: int = 0
    elapsed_s: float = 0.0


class Run:
    """A network in training: weights, optimizer, schedule, log, and position in the epoch.

    `Run.begin` starts a run. `Run.restore` continues the run of a checkpoint.
    """

    def __init__(self, plan: Plan, workers: Workers, network: AlexNet, colour_axes: Tensor):
        """Move `network` to its training devices. `colour_axes` is (3, 3) float32."""
        recipe = executed_recipe(plan, workers)
        self.plan = plan
        self.workers = workers
        self.device = training_device(plan, workers)
        self.colour_axes = colour_axes.to(self.device)
        self.train_canvases = keep_on_device(plan.train.canvases, self.device)
        """The canvases of the training images, (N, R, R, 3) uint8. If they fit, they are on the
        GPU."""
        self._whole_network = network.to(self.device).to(memory_format=torch.channels_last)
        self.network: AlexNet | TowerParallel = self._whole_network
        """The module whose weights the optimizer changes."""
        if plan.tower_devices:
            self.network = TowerParallel(self._whole_network, plan.tower_devices)
        part = workers.part(recipe.batch_size)
        self.forward = _wrap(
            self.network, workers, part.end - part.start, compiles=recipe.compilation == "on"
        )
        """The function that a step calls: uint8 squares (B, S, S, 3) -> logits and features."""
        self.autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
        )
        self.optimizer = build_optimizer(self.network, plan.recipe, plan.old_layers)
        self.schedule = Schedule(plan.recipe)
        self.log: list[Epoch] = []
        self.position = Position()

    @classmethod
    def begin(cls, plan: Plan, workers: Workers) -> "Run":
        """Start a run with the plan's initial weights or with random weights.

        This measures the pixel statistics of the training images.
        """
        recipe, device = plan.recipe, training_device(plan, workers)
        network = AlexNet(plan.architecture)
        initialize(network, recipe.initialization, recipe.seed)
        statistics = measure_pixels(plan.train.canvases, recipe.image_size, device)
        network.set_preprocessing(statistics)
        if plan.initial:
            network.load_state_dict(plan.initial, strict=False)
        return cls(plan, workers, network, torch.from_numpy(statistics.colour_axes).float())

    @classmethod
    def restore(cls, plan: Plan, workers: Workers, file: Path) -> "Run":
        """Continue the run of a checkpoint.

        Raises TrainingError if the checkpoint is damaged or belongs to another run.
        """
        state = read_checkpoint(file, recipe=plan.recipe, fingerprint=plan.fingerprint)
        try:
            _check_towers(file, plan, is_tower_parallel=state["is_tower_parallel"])
            network = AlexNet(plan.architecture)
            network.load_state_dict(state["network"])
            run = cls(plan, workers, network, state["colour_axes"])
            load_optimizer(run.optimizer, state["optimizer"])
            run.schedule.restore(state["schedule"])
            run.log = [Epoch(**line) for line in state["log"]]
            run.position = Position(**state["position"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(file) from error
        return run

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return len(self.log)

    @property
    def is_frozen(self) -> bool:
        """Whether only the new last layer is trained in the current epoch."""
        return self.epoch < self.plan.recipe.frozen_epochs

    def set_training_mode(self) -> None:
        """Prepare the network for training steps. Frozen layers keep their batch statistics."""
        self.network.train()
        if self.is_frozen:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                    module.eval()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def whole_network(self) -> AlexNet:
        """The network with the weights of the last step, on one device."""
        if isinstance(self.network, TowerParallel):
            self.network.write_back(self._whole_network)
        return self._whole_network

    def save(self) -> None:
        """Write the checkpoint, atomically. Only the first process writes."""
        if not self.workers.is_first:
            return
        plan = self.plan
        state: dict[str, Any] = {
            "network": self.whole_network().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "colour_axes": self.colour_axes,
            "position": asdict(self.position),
            "log": [asdict(line) for line in self.log],
            "is_tower_parallel": bool(plan.tower_devices),
            "probe_top1": plan.probe_top1,
        }
        if plan.num_listed is not None:
            state["num_listed"] = plan.num_listed
        write_checkpoint(
            plan.checkpoint_file, state, recipe=plan.recipe, fingerprint=plan.fingerprint
        )


def _wrap(
    network: AlexNet | TowerParallel, workers: Workers, batch_size: int, *, compiles: bool
) -> Forward:
    """The function that a step calls: the network, wrapped for several processes and compiled.

    Each of the two is done only if it is needed.
    """
    forward: Forward = network
    if workers.count > 1:
        synchronize_batch_norms(network)
        # Every process computes the same buffers, so no process has to send them.
        forward = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
    return _compiled(forward, batch_size) if compiles else forward


def _compiled(forward: Forward, batch_size: int) -> Forward:
    """Compile the network for batches of one size. The last batch of an epoch can be smaller.

    That batch is not compiled. Otherwise torch would compile a second version for all sizes, and
    the other batches would use this slower version too.
    """
    compiled = torch.compile(forward, dynamic=False)
    return lambda squares: (compiled if len(squares) == batch_size else forward)(squares)


def _check_towers(file: Path, plan: Plan, *, is_tower_parallel: bool) -> None:
    """Raise TrainingError if the checkpoint and the plan differ in their use of --tower-devices."""
    if is_tower_parallel != bool(plan.tower_devices):
        used = "with" if is_tower_parallel else "without"
        raise TrainingError(f"{file} was trained {used} --tower-devices; resume it the same way")
