"""The choice of a device, with and without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.devices import best_device, device_name, resolve_device
from training.errors import UserError

ROOT = Path(__file__).parents[2]


def pretend(monkeypatch: pytest.MonkeyPatch, *, has_driver: bool, has_gpu: bool) -> None:
    nodes = ("/dev/null",) if has_driver else ()
    monkeypatch.setattr("training.devices.GPU_DRIVER_NODES", nodes)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)


def test_auto_takes_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, has_driver=True, has_gpu=True)
    assert resolve_device("auto") == "gpu"
    assert resolve_device("gpu") == "gpu"
    assert resolve_device("cpu") == "cpu"
    assert best_device() == torch.device("cuda")


@pytest.mark.parametrize("has_driver", [True, False])
def test_a_gpu_that_is_not_there_is_a_clear_error(
    has_driver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, has_driver=has_driver, has_gpu=False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UserError, match="torch finds none here; pass --device cpu"):
        resolve_device("gpu")
    assert best_device() == torch.device("cpu")


def test_a_machine_with_a_driver_but_without_torch_computes_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, has_driver=True, has_gpu=True)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now raises ImportError
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UserError, match="pass --device cpu"):
        resolve_device("gpu")


def test_torch_is_not_imported_without_a_driver() -> None:
    program = """
import sys
import training.devices
training.devices.GPU_DRIVER_NODES = ()
assert training.devices.resolve_device("auto") == "cpu"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_cpu_has_a_name() -> None:
    assert device_name(torch.device("cpu")) == "CPU"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_chosen_and_has_its_makers_name() -> None:
    assert resolve_device("auto") == "gpu"
    assert device_name(best_device()) not in ("", "CPU")
