"""How good is a trained model, what was it trained with, and how long did that take?

    python -m benchmarks.training_accuracy MODEL DATA [--name NAME]

DATA are labelled images that the model has not seen. Top-1 and top-5 are given for the centre and for the paper's ten crops.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.record import record
from training.learning.log import LOG_FILE, read_log
from training.learning.session import evaluate_models
from training.network.model import read_card


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--name", default="training_accuracy")
    arguments = parser.parse_args()
    record(arguments.name, accuracy(arguments.model, arguments.data))


def accuracy(model: Path, data: str) -> dict[str, Any]:
    """What model.json and log.jsonl say of the training, and the shares of right answers."""
    card = read_card(model)
    log = read_log(model / LOG_FILE)
    one, ten = (evaluate_models([model], data, num_crops=crops) for crops in (1, 10))
    return {
        "model": card.id[:12],
        "recipe": dict(card.recipe),
        "trained_on": card.data["num_train"],
        "epochs": len(log),
        "training_minutes": round(log[-1]["elapsed_s"] / 60, 1),
        "training_images_per_s": round(sorted(line["images_per_s"] for line in log)[len(log) // 2]),
        "images": one.num_images,
        "top1": one.top1,
        "top5": one.top5,
        "top1_10_crops": ten.top1,
        "top5_10_crops": ten.top5,
    }


if __name__ == "__main__":
    main()
