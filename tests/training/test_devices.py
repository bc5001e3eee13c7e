"""The choice of a device, with and without a GPU."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training import devices
from training.devices import best_device, device_name, gpu_problem, resolve_device
from training.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    devices._is_usable.cache_clear()
    yield
    devices._is_usable.cache_clear()


def pretend(
    monkeypatch: pytest.MonkeyPatch, *, has_driver: bool, has_gpu: bool, problem: str | None = None
) -> None:
    """Let torch see a GPU that has a problem, or that works."""
    nodes = ("/dev/null",) if has_driver else ()
    monkeypatch.setattr("training.devices.GPU_DRIVER_NODES", nodes)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    monkeypatch.setattr("training.devices.gpu_problem", lambda: problem)


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


def test_a_gpu_that_torch_cannot_use_gives_the_cpu_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, has_driver=True, has_gpu=True, problem="the GPU is too old")
    assert [resolve_device("auto") for _ in range(3)] == ["cpu"] * 3
    assert best_device() == torch.device("cpu")
    assert capsys.readouterr().err == "The CPU is used, because the GPU is too old\n"
    with pytest.raises(UserError, match=r"^the GPU is too old; pass --device cpu$"):
        resolve_device("gpu")


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, free_gib: float) -> None:
    """Let torch see a GPU with this much free memory."""
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Old GPU")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (int(free_gib * 2**30), 2**34))


def test_a_gpu_with_little_free_memory_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, free_gib=1.5)
    assert gpu_problem() == "the Old GPU has 1.5 GiB of free memory, and 2 GiB are needed"


def test_a_gpu_for_which_torch_has_no_kernels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, free_gib=8)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors ...")

    monkeypatch.setattr("torch.ones", fail)
    expected = "cannot compute on the Old GPU (CUDA error: no kernel image is available)"
    assert (gpu_problem() or "").endswith(expected)


def test_a_gpu_that_cannot_be_initialized_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("CUDA driver error: device busy")

    monkeypatch.setattr("torch.cuda.get_device_name", fail)
    assert "cannot compute on the GPU (CUDA driver error: device busy)" in (gpu_problem() or "")


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
def test_a_gpu_is_chosen_and_has_its_makers_name() -> None:
    assert gpu_problem() is None
    assert resolve_device("auto") == "gpu"
    assert device_name(best_device()) not in ("", "CPU")
