"""Write model.int8.onnx: the network of a model directory in 8 bits, and how well it agrees."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from training.files import file_sha256, write_atomically
from training.network.model import (
    INT8_FILE,
    ONNX_FILE,
    Agreement,
    Int8Card,
    check_file,
    read_card,
    write_card,
)
from training.network.onnx_session import open_session
from training.network.quantization.agreement import Answers
from training.network.quantization.calibration import METHOD, calibrate
from training.network.quantization.float_network import FloatNetwork
from training.network.quantization.images import Images
from training.network.quantization.int8_network import round_layers, write_network
from training.network.quantization.layer_choice import Comparison, choose_layers
from training.network.quantization.rounding import FloatLayer


def write_int8(directory: Path, images: Images, *, data: str) -> Int8Card:
    """Write model.int8.onnx and its facts in model.json; raises ModelError.

    `data` is the name of the images. Without images for the choice, all layers are int8, however
    well the answers agree.
    """
    card = read_card(directory)
    float32_file = check_file(directory, ONNX_FILE, card.onnx_sha256)
    session = open_session(float32_file)
    calibration, choice, others, report = (
        Answers.of(session, squares)
        for squares in (images.calibration, images.choice, images.others, images.report)
    )
    del session  # it holds all weights
    network = FloatNetwork.read(float32_file)
    measured = calibrate(network, images.calibration)
    indexed = np.concatenate([calibration.features, others.features])
    if len(images.choice):
        layers = choose_layers(network, measured, Comparison(images.choice, choice, indexed))
    else:
        layers = round_layers(network, measured)
    content = write_network(network, layers).SerializeToString()
    agreement = Comparison(images.report, report, indexed, images.targets).agreement(content)
    # If the program is killed in between, model.json must not describe another file.
    write_card(replace(card, int8=None), directory)
    write_atomically(directory / INT8_FILE, content)
    int8 = Int8Card(
        sha256=file_sha256(directory / INT8_FILE),
        float32_layers=tuple(one.layer.name for one in layers if isinstance(one, FloatLayer)),
        calibration={
            "data": data,
            "method": METHOD,
            "num_images": len(images.calibration),
            "num_choice_images": len(images.choice),
        },
        agreement=agreement,
    )
    write_card(replace(card, int8=int8), directory)
    return int8


def describe(int8: Int8Card) -> str:
    """One line about a network in int8, for people."""
    agreement = int8.agreement
    shares = (
        f"{agreement.top1:.1%} of the classes and {agreement.nearest10:.1%} of the 10 nearest are "
        f"as in float32, on {agreement.num_images:,} images"
    )
    layers = f"; {', '.join(int8.float32_layers)} in float32" if int8.float32_layers else ""
    return f"{INT8_FILE}: {shares}{layers}; {_use(agreement)}"


def _use(agreement: Agreement) -> str:
    if agreement.is_sufficient:
        return "it is the default on processors with int8 instructions"
    reason = "that is not enough"
    if agreement.reaches_shares:
        reason = "these are too few images to rely on"
    return f"{reason}, so it is used only with --precision int8"
