"""The records of a run: one JSON line per epoch, the learning curve, and TensorBoard's events."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.files import write_atomically

LOG_FILE, CURVE_FILE, TENSORBOARD_FOLDER = "log.jsonl", "learning-curve.png", "tensorboard"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of log.jsonl.

    Losses are means in nats. Errors and top-k are shares, 0 to 1.
    """

    epoch: int
    """Counted from 1."""
    learning_rate: float
    """The rate of the epoch's last step."""
    train_loss: float
    train_error: float
    """Share of wrong answers during training, on the augmented images."""
    val_loss: float | None
    """The validation's results are None in an epoch without a validation (see epoch.py)."""
    val_top1: float | None
    val_top5: float | None
    images_per_s: float
    elapsed_s: float
    """Time since the start of the run, without the time of interruptions."""


def write_log(lines: Sequence[Epoch], directory: Path) -> None:
    """Write log.jsonl."""
    text = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
    write_atomically(directory / LOG_FILE, text.encode())


def draw_log(lines: Sequence[Epoch], directory: Path) -> None:
    """Draw the learning curve if Matplotlib is installed.

    Without Matplotlib, nothing is drawn, because a run of many hours must not fail for a picture.
    """
    if find_spec("matplotlib"):
        draw_learning_curve([asdict(line) for line in lines], directory / CURVE_FILE)


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def draw_learning_curve(log: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the loss, error and learning rate of each epoch as a PNG file.

    `log` contains the lines of log.jsonl.
    """
    from training.plotting import plt, save_figure

    epochs = [line["epoch"] for line in log]
    figure, (losses, errors) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    losses.plot(epochs, [line["train_loss"] for line in log], label="training (augmented)")
    validated = [line for line in log if line["val_loss"] is not None]
    val_epochs = [line["epoch"] for line in validated]
    losses.plot(val_epochs, [line["val_loss"] for line in validated], label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy, nats", ylim=(0, None))
    train_errors = [100 * line["train_error"] for line in log]
    errors.plot(epochs, train_errors, label="training (augmented), top-1")
    for k in (1, 5):
        values = [100 * (1 - line[f"val_top{k}"]) for line in validated]
        errors.plot(val_epochs, values, label=f"validation, top-{k}")
    errors.set(xlabel="epoch", ylabel="error, %", ylim=(0, None))
    rates = errors.twinx()
    rates.plot(epochs, [line["learning_rate"] for line in log], color="0.75", linestyle=":")
    rates.set(ylabel="learning rate (dotted)", ylim=(0, None))
    for axes in (losses, errors):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    save_figure(figure, file)


def check_tensorboard() -> None:
    """Raise UserError if the package tensorboard is not installed."""
    if find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard, which is not installed; "
            "install it with: pip install tensorboard"
        )


class TensorBoard:
    """Writes the results of each epoch as TensorBoard events.

    The events are written to the folder `tensorboard` in `directory`. When a resumed run repeats an
    epoch, the new events of this epoch replace the old ones.
    """

    def __init__(self, directory: Path, *, num_epochs_done: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(directory / TENSORBOARD_FOLDER), purge_step=num_epochs_done + 1
        )

    def write(self, line: Epoch) -> None:
        """Write the results of one epoch. Losses and errors form two groups of charts."""
        values = {
            "loss/training": line.train_loss,
            "error/training": line.train_error,
            "learning rate": line.learning_rate,
            "images per second": line.images_per_s,
        }
        if line.val_loss is not None and line.val_top1 is not None and line.val_top5 is not None:
            values |= {
                "loss/validation": line.val_loss,
                "error/validation": 1 - line.val_top1,
                "error/validation, top-5": 1 - line.val_top5,
            }
        for name, value in values.items():
            self._writer.add_scalar(name, value, line.epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
