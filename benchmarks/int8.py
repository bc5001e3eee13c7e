"""How often does a network in int8 answer as in float32, and how fast is it?

    python -m benchmarks.int8 MODEL DATA [--images 1000] [--rounds 30] [--name int8]

DATA are the images that MODEL was trained on. As in `lookalike export --int8`, training images
calibrate the network and choose its layers. The held-out images are drawn in two halves of at most
`--images` images each. The first half compares other methods with the default. Only the default is
measured on the second half, and these are the figures of the network. The 10 nearest are searched
among training images in float32.

MODEL is not changed. Both precisions are timed in turns, in one process.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.int8_methods import DEFAULT, FULLY_CONNECTED, methods
from benchmarks.record import record
from training.data.images import Pixels
from training.learning.int8 import read_images
from training.network.model import ONNX_FILE, Agreement, check_file, read_card
from training.network.onnx_session import open_session
from training.network.quantization.agreement import Answers
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.images import Amounts, Images
from training.network.quantization.int8_network import write_network
from training.network.quantization.layer_choice import Comparison
from training.network.quantization.rounding import FinishedLayer, FloatLayer
from training.processor import has_int8_instructions

BATCH_SIZES = (1, 4, 16)
Sessions = Mapping[str, onnxruntime.InferenceSession]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=1000, help="held-out images in each half")
    parser.add_argument("--rounds", type=int, default=30, help="number of times that are measured")
    parser.add_argument("--name", default="int8")
    arguments = parser.parse_args()
    amounts = Amounts(report=2 * arguments.images)
    images = read_images(read_card(arguments.model), arguments.data, amounts)
    figures = {"trained_images": Path(arguments.data).name}
    figures |= measure(arguments.model, images, arguments.rounds)
    record(arguments.name, figures, model=arguments.model)


def measure(model: Path, images: Images, num_rounds: int) -> dict[str, Any]:
    """Make the network of a model directory in int8 by every method, compare and time it."""
    file = check_file(model, ONNX_FILE, read_card(model).onnx_sha256)
    session, network = open_session(file), FloatNetwork.read(file)
    indexed = Answers.of(session, np.concatenate([images.calibration, images.others])).features

    def comparison(squares: Pixels, targets: Any = None) -> Comparison:
        return Comparison(squares, Answers.of(session, squares), indexed, targets)

    first, second = (_half(images, start) for start in (0, 1))
    trial, final = (comparison(half.report, half.targets) for half in (first, second))
    figures: dict[str, Any] = {
        "has_int8_instructions": has_int8_instructions(),
        "calibration_images": len(images.calibration),
        "choice_images": len(images.choice),
    }
    compared: dict[str, Any] = {}
    timed: dict[str, onnxruntime.InferenceSession] = {"float32": session}
    for name, layers in methods(network, images, comparison(images.choice)):
        content = write_network(network, layers).SerializeToString()
        compared[name] = facts(trial.agreement(content), layers)
        print(f"{name}: {compared[name]}", flush=True)
        if name == DEFAULT:
            timed["int8"] = open_session(content)
            agreement = final.agreement(content)
            figures |= facts(agreement, layers) | {"is_sufficient": agreement.is_sufficient}
            figures["share_of_the_size"] = round(len(content) / file.stat().st_size, 3)
        elif name == FULLY_CONNECTED:
            timed["fully_connected"] = open_session(content)
    figures |= {"methods": compared, "speed": time_networks(timed, second.report, num_rounds)}
    return figures


def facts(agreement: Agreement, layers: Sequence[FinishedLayer]) -> dict[str, Any]:
    """The agreement of a network, and its layers in float32."""
    before, after = agreement.accuracy_float32, agreement.accuracy_int8
    return {
        "images": agreement.num_images,
        "indexed": agreement.num_indexed,
        "top1_agrees": round(agreement.top1, 4),
        "nearest10_agree": round(agreement.nearest10, 4),
        "cosine": round(agreement.cosine, 6),
        "accuracy_float32": None if before is None else round(before, 4),
        "accuracy_int8": None if after is None else round(after, 4),
        "float32_layers": [one.layer.name for one in layers if isinstance(one, FloatLayer)],
    }


def time_networks(sessions: Sessions, squares: Pixels, num_rounds: int) -> dict[str, Any]:
    """Milliseconds per image for each batch size, and how many times as fast as in float32.

    In each round, each network runs once on the same batch. So a slow moment of the machine slows
    all of them.
    """
    figures: dict[str, Any] = {}
    for batch_size in BATCH_SIZES:
        seconds: dict[str, list[float]] = {name: [] for name in sessions}
        # If there are too few images, some occur twice.
        batch = squares[np.arange(batch_size) % len(squares)]
        for number in range(num_rounds + 1):
            for name, session in sessions.items():
                started_s = perf_counter()
                session.run(["logits", "features"], {"images": batch})
                if number:  # the first round warms up
                    seconds[name].append(perf_counter() - started_s)
        figures[f"batch_{batch_size}"] = {
            name: _spread(1000 * np.array(values) / batch_size) for name, values in seconds.items()
        } | {
            f"{name}_times_as_fast": round(
                float(np.median(np.array(seconds["float32"]) / np.array(values))), 2
            )
            for name, values in seconds.items()
            if name != "float32"
        }
    return figures | {"rounds": num_rounds}


def _spread(ms_per_image: Any) -> dict[str, float]:
    low, middle, high = np.percentile(ms_per_image, [5, 50, 95])
    names = ("ms_p5", "ms_p50", "ms_p95")
    return {name: round(float(v), 2) for name, v in zip(names, (low, middle, high), strict=True)}


def _half(images: Images, start: int) -> Images:
    """Every second one of the held-out images."""
    targets = None if images.targets is None else images.targets[start::2]
    return replace(images, report=images.report[start::2], targets=targets)


if __name__ == "__main__":
    main()
