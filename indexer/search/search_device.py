"""The device that FAISS searches on: the CPU, or a GPU that FAISS can really use."""

import subprocess
import sys
from functools import cache

import faiss

from training.devices import Device
from training.errors import UserError
from training.progress import console

TRIAL_SEARCH = """
import faiss
import numpy as np
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8)
vectors = np.eye(8, dtype=np.float32)
index.add(vectors)
assert (index.search(vectors, 1)[1][:, 0] == range(8)).all()
"""
TRIAL_TIMEOUT_S = 60


def resolve_search_device(device: Device) -> Device:
    """Choose the CPU or a GPU; raises UserError for `gpu` if FAISS cannot use a GPU."""
    if device == "cpu":
        return "cpu"
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        problem = gpu_problem()
        if problem is None:
            return "gpu"
        if device == "gpu":
            raise UserError(f"{problem}; pass --device cpu")
        _print_once(f"The CPU searches, because {problem}")
        return "cpu"
    if device == "gpu":
        raise UserError(
            "a GPU was asked for but FAISS finds none here; "
            "pass --device cpu, or install faiss-gpu on a machine with an NVIDIA GPU"
        )
    return "cpu"


@cache
def gpu_problem() -> str | None:
    """The reason why FAISS cannot search on the GPU that it sees; None if it can.

    The trial search runs in another process, because FAISS ends its process if it has no kernels
    for the GPU. If this process has imported torch, the other process imports torch too, so that
    torch's CUDA libraries are loaded there as well.
    """
    preload = "import torch\n" if "torch" in sys.modules else ""
    command = [sys.executable, "-c", preload + TRIAL_SEARCH]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"FAISS did not answer a search on the GPU within {TRIAL_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return f"FAISS {faiss.__version__} cannot search on the GPU ({reason[:200]})"


@cache
def _print_once(text: str) -> None:
    console.print(text)
