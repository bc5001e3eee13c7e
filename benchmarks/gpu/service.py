"""Start the service on the GPU and on the CPU, and measure requests per second.

The clients are threads of one Python process, on the same machine as the service. Above a few
hundred requests per second, they take a good part of the cores that the service would use.
"""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.gpu.embedding import model_directory
from benchmarks.gpu.job import Job, need, need_faiss_gpu
from benchmarks.record import ROOT
from benchmarks.search_kinds import make_index

NUM_ITEMS = 1000
SERVE = "import sys, torch, lookalike; lookalike.main()"
"""Torch is imported first, for the sake of FAISS."""
MAX_START_S = 60.0
NUM_WARM_UP = 20


def run(job: Job) -> None:
    for device in ("gpu", "cpu"):
        job.measure(device, lambda: _measure(job, device))  # noqa: B023


def _measure(job: Job, device: str) -> Mapping[str, Any]:
    need("fastapi", "fastapi_offline", "uvicorn", "multipart")
    if device == "gpu":
        need_faiss_gpu(job)
    model_directory(job)
    index = make_index(job.workdir, NUM_ITEMS)
    with _serving(index, device) as url:
        return {
            f"{path[1:]}_by_{num_clients}_clients": _load(job, f"{url}{path}", num_clients)
            for path in ("/classify", "/similar")
            for num_clients in job.size((2,), (1, 32))
        }


def _load(job: Job, url: str, num_clients: int) -> dict[str, float]:
    """Send an image again and again from a number of clients, each on its own connection."""
    content, seconds = _jpeg(), job.size(0.3, 4.0)
    with httpx.Client(timeout=60) as client:
        for _ in range(job.size(2, NUM_WARM_UP)):
            client.post(url, files={"image": ("photo.jpg", content)}).raise_for_status()

    def requests(_: int) -> list[float]:
        times = []
        with httpx.Client(timeout=30) as client:
            while perf_counter() < end_s:
                sent_s = perf_counter()
                answer = client.post(url, files={"image": ("photo.jpg", content)})
                answer.raise_for_status()
                times.append(perf_counter() - sent_s)
        return times

    started_s = perf_counter()
    end_s = started_s + seconds
    with ThreadPoolExecutor(num_clients) as pool:
        times = np.concatenate([*pool.map(requests, range(num_clients))])
    return {
        "requests_per_s": round(len(times) / (perf_counter() - started_s), 1),
        "p50_ms": round(1000 * float(np.percentile(times, 50)), 1),
        "p95_ms": round(1000 * float(np.percentile(times, 95)), 1),
    }


@contextmanager
def _serving(index: Path, device: str) -> Iterator[str]:
    """The address of a service that uses the GPU or only the CPU."""
    hidden = {} if device == "gpu" else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", SERVE, "serve", str(index), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | hidden
    ) as process:
        try:
            assert process.stdout is not None
            addresses = (re.search(r"http://\S+", line) for line in process.stdout)
            url = next((match[0] for match in addresses if match), None)
            if url is None:
                raise RuntimeError(f"the service ended with status {process.wait()}")
            _wait_until_ready(url)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(url: str) -> None:
    end_s = perf_counter() + MAX_START_S
    while httpx.get(f"{url}/readyz").status_code != 200:
        if perf_counter() > end_s:
            raise RuntimeError(f"the service was not ready after {MAX_START_S:.0f} s")
        sleep(0.05)


def _jpeg() -> bytes:
    """A JPEG of 400 x 300 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (38, 50, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((400, 300)).save(out, "JPEG")
    return out.getvalue()
