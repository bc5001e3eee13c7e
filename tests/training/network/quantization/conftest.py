"""Networks that several tests quantize."""

from pathlib import Path

import pytest

from tests.training.network.quantization.networks import made_up_squares, write_random_network
from training.network.quantization.calibration import Calibration, calibrate
from training.network.quantization.float_network import FloatNetwork


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a random network without normalisation."""
    return write_random_network(tmp_path_factory.mktemp("network") / "model.onnx")


@pytest.fixture(scope="session")
def network(network_file: Path) -> FloatNetwork:
    """The network of `network_file`. Do not change it."""
    return FloatNetwork.read(network_file)


@pytest.fixture(scope="session")
def calibration(network: FloatNetwork) -> Calibration:
    """The values of `network` on 24 images."""
    return calibrate(network, made_up_squares(24))
