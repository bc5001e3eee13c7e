"""How good is a trained model, with which recipe was it trained, and how long did that take?

    python -m benchmarks.training_accuracy MODEL DATA [--name NAME]

DATA contains labelled images that the model was not trained on. Top-1 and top-5 are measured with
the central crop and with the paper's ten crops.
"""

import argparse
from pathlib import Path
from statistics import median_high
from typing import Any

from benchmarks.record import record
from training.learning.evaluation import evaluate_models
from training.learning.log import LOG_FILE, read_log
from training.network.model import read_card


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--name", default="training_accuracy")
    arguments = parser.parse_args()
    figures = accuracy(arguments.model, arguments.data)
    record(arguments.name, figures, model=arguments.model)


def accuracy(model: Path, data: str) -> dict[str, Any]:
    """Top-1 and top-5 on `data`, and facts about the training from model.json and log.jsonl."""
    card = read_card(model)
    log = read_log(model / LOG_FILE)
    one, ten = (evaluate_models([model], data, num_crops=crops) for crops in (1, 10))
    return {
        "model": card.id[:12],
        "recipe": dict(card.recipe),
        "trained_on": card.data["num_train"],
        "epochs": len(log),
        "training_minutes": round(log[-1]["elapsed_s"] / 60, 1),
        "training_images_per_s": round(median_high(epoch["images_per_s"] for epoch in log)),
        "images": one.num_images,
        "top1": one.top1,
        "top5": one.top5,
        "top1_10_crops": ten.top1,
        "top5_10_crops": ten.top5,
    }


if __name__ == "__main__":
    main()
