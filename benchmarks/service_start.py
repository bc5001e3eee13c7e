"""How soon does the service answer on an index of 10,000 items, and what does it load?

    python -m benchmarks.service_start [--items N] [--coded-items N] [--runs N]

A second index has 100,000 items with codes of 256 bits. Both indexes are searched by a scan. The
features are made up, but have the real shape. The encoder has random weights, because a start does
not depend on them. The network is the paper's network at 224 pixels, with 1000 classes and random
weights. The files of the indexes are in the memory of the system already when the service starts.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np

from benchmarks.made_up import made_up_feature, made_up_item, make_model
from benchmarks.record import ROOT, record
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.writer import IndexWriter
from training.network.model import NUM_FEATURES

COMMIT_EVERY = 1000
NUM_BITS = 256


class Start(NamedTuple):
    """One start of the service."""

    ready_s: float
    """Time from the start of the process until /readyz answers with status 200."""
    has_torch: bool
    """Whether the process has loaded torch's libraries."""
    resident_mb: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--coded-items", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        model, index, coded = (Path(scratch, name) for name in ("model", "index", "coded"))
        make_model(model, num_classes=1000, normalization="response")
        make_index(index, model, arguments.items)
        figures: dict[str, Any] = {"items": arguments.items, "runs": arguments.runs}
        figures |= measure(index, arguments.runs)
        if arguments.coded_items:
            make_index(coded, model, arguments.coded_items)
            add_codes(coded)
            figures["coded"] = {"items": arguments.coded_items, **measure(coded, arguments.runs)}
    record("service_start", figures)


def measure(index: Path, num_runs: int) -> dict[str, Any]:
    """Start the service several times."""
    return summary([_start(index) for _ in range(num_runs)])


def summary(starts: list[Start]) -> dict[str, Any]:
    """The spread of the times, whether any start loads torch, and the maximum memory."""
    seconds = [start.ready_s for start in starts]
    return {
        "ready_s": {
            "min": round(min(seconds), 2),
            "median": round(statistics.median(seconds), 2),
            "max": round(max(seconds), 2),
        },
        "torch_is_loaded": any(start.has_torch for start in starts),
        "resident_mb": max(start.resident_mb for start in starts),
    }


def make_index(directory: Path, model: Path, count: int) -> None:
    """Make an index of made-up items."""
    random = np.random.default_rng(0)
    with IndexWriter.open(directory, model) as writer:
        for number in range(count):
            writer.add(made_up_item(number, made_up_feature(random)))
            if number % COMMIT_EVERY == COMMIT_EVERY - 1:
                writer.commit()
        writer.commit(is_complete=True)


def add_codes(directory: Path) -> None:
    """Add the codes of an encoder with random weights to an index."""
    weights = np.random.default_rng(0).standard_normal((NUM_BITS, NUM_FEATURES), np.float32)
    with IndexWriter.open(directory) as writer:
        facts = CodeFacts(
            num_bits=NUM_BITS, num_fitted=0, seed=0, commit=writer.manifest.commit, loss=()
        )
        writer.write_codes(Encoder(facts, weights, np.zeros(NUM_BITS, np.float32)))
        writer.commit()


def _start(index: Path) -> Start:
    """Start the service, wait until it is ready, and stop it."""
    started = time.perf_counter()
    command = [sys.executable, "lookalike.py", "serve", str(index), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        urls = (re.search(r"http://\S+", line) for line in process.stdout)
        url = next(match[0] for match in urls if match)
        while not _is_ready(url):
            time.sleep(0.01)
        ready_s = time.perf_counter() - started
        has_torch = "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident_mb = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) // 1024
        process.terminate()
    return Start(ready_s, has_torch, resident_mb)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz") as answer:
            return bool(answer.status == 200)
    except HTTPError:
        return False


if __name__ == "__main__":
    main()
