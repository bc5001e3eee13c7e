"""Small ablations: one epoch on coloured images, and what they leave in their folders."""

import json
from pathlib import Path
from typing import Any

from training.experiments.outcomes import RESULT_FILE
from training.learning.request import Request

QUICK = ("batch_size=8", "learning_rate=0.002", "initialization=kaiming")


def quick_request(data: Path, out: Path, *settings: str) -> Request:
    """One epoch of the paper's recipe at 67 pixels."""
    return Request(
        data=str(data),
        out=out,
        recipe="paper",
        epochs=1,
        image_size=67,
        settings=(*QUICK, *settings),
    )


def read_result(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / RESULT_FILE).read_text())
    return content


def write_result(run: Path, content: dict[str, Any]) -> None:
    run.mkdir(exist_ok=True)
    (run / RESULT_FILE).write_text(json.dumps(content))
