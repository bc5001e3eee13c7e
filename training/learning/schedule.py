"""The learning rate of every step: the paper's plateaus, or a warm-up and a cosine.

The plateaus follow section 5. The cosine follows Loshchilov and Hutter 2017.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from training.learning.recipe import Recipe

NUM_DROPS = 3
"""Number of times that the rate falls to a tenth before training ends (section 5)."""


@dataclass
class Plateau:
    """Counts the epochs without a lower validation error, and the drops of the rate.

    Training ends at the first plateau after the third drop.
    """

    best_error: float = math.inf
    epochs_waited: int = 0
    num_drops: int = 0
    has_ended: bool = False

    def observe(self, error: float, patience_epochs: int) -> None:
        """Update the counts with the validation error of an epoch."""
        if error < self.best_error:
            self.best_error, self.epochs_waited = error, 0
            return
        self.epochs_waited += 1
        if self.epochs_waited >= patience_epochs:
            self.epochs_waited = 0
            self.has_ended = self.num_drops == NUM_DROPS
            self.num_drops = min(self.num_drops + 1, NUM_DROPS)


class Schedule:
    """The learning rate over a run. Call `end_epoch` after each epoch."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.plateau = Plateau()

    @property
    def warmup_epochs(self) -> float:
        """The number of epochs in which the rate rises."""
        if self.recipe.schedule == "plateau":
            return 0.0
        return min(self.recipe.warmup_epochs, self.recipe.epochs / 2)

    def rate(self, epoch: float) -> float:
        """The learning rate after `epoch` epochs. `epoch` can be a fraction."""
        recipe = self.recipe
        if recipe.schedule == "plateau":
            return recipe.learning_rate * 0.1**self.plateau.num_drops
        warmup = self.warmup_epochs
        if epoch < warmup:
            return recipe.learning_rate * epoch / warmup
        angle = math.pi * (epoch - warmup) / (recipe.epochs - warmup)
        return recipe.learning_rate * (1 + math.cos(angle)) / 2

    def end_epoch(self, error: float) -> None:
        """Update the schedule with the validation error of an epoch. `cosine` ignores the error."""
        if self.recipe.schedule == "plateau":
            self.plateau.observe(error, self.recipe.patience_epochs)

    @property
    def has_ended(self) -> bool:
        """Whether the schedule has ended the training before the recipe's last epoch."""
        return self.plateau.has_ended

    def state(self) -> dict[str, Any]:
        """The state of the schedule as plain values. `restore` accepts them."""
        return asdict(self.plateau)

    def restore(self, state: dict[str, Any]) -> None:
        self.plateau = Plateau(**state)
