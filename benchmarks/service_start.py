"""How soon does the service answer on an index of 10,000 items, and what does it load for that?

    python -m benchmarks.service_start [--items N] [--runs N]

The features are made up, with the real shape; the network is the paper's at its full 224 pixels and 1000 classes.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np

from benchmarks.record import record
from indexer.storage.writer import IndexWriter, NewItem
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        model, index = Path(scratch, "model"), Path(scratch, "index")
        make_model(model)
        _make_index(index, model, arguments.items)
        runs = [_start(index) for _ in range(arguments.runs)]
    seconds = sorted(elapsed_s for elapsed_s, _, _ in runs)
    record(
        "service_start",
        {
            "items": arguments.items,
            "runs": arguments.runs,
            "ready_s": {
                "min": round(seconds[0], 2),
                "median": round(statistics.median(seconds), 2),
                "max": round(seconds[-1], 2),
            },
            "torch_is_loaded": any(has_torch for _, has_torch, _ in runs),
            "resident_mb": max(resident_mb for _, _, resident_mb in runs),
        },
    )


def make_model(directory: Path) -> None:
    network = AlexNet(
        Architecture(layout="paper", normalization="response", num_classes=1000, image_size=224)
    )
    initialize(network, "paper", seed=0)
    save_model(
        network,
        directory,
        class_names=tuple(map(str, range(1000))),
        recipe={},
        data={"name": "made up"},
        metrics={},
    )


def _make_index(directory: Path, model: Path, count: int) -> None:
    random = np.random.default_rng(0)
    with IndexWriter.open(directory, model) as writer:
        for number in range(count):
            feature = np.maximum(random.standard_normal(4096, np.float32), 0)
            writer.add(
                NewItem(
                    path=f"{number}.jpg",
                    label=str(number % 10),
                    sha256=f"{number:064}",
                    width=224,
                    height=224,
                    thumbnail=b"",
                    feature=feature,
                )
            )
            if number % 1000 == 999:
                writer.commit()
        writer.commit(is_complete=True)


def _start(index: Path) -> tuple[float, bool, int]:
    """Seconds from the start of the process to ready, whether it maps torch's libraries, and its resident memory in MB."""
    started = time.perf_counter()
    command = [sys.executable, "lookalike.py", "serve", str(index), "--port", "0"]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = next(
            found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))
        )
        while not _is_ready(address):
            time.sleep(0.01)
        elapsed_s = time.perf_counter() - started
        has_torch = "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident_mb = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) // 1024
        process.terminate()
    return elapsed_s, has_torch, resident_mb


def _is_ready(address: str) -> bool:
    try:
        with urlopen(f"{address}/readyz") as answer:
            return bool(answer.status == 200)
    except HTTPError:
        return False


if __name__ == "__main__":
    main()
