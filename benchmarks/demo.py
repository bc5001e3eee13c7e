"""How long does `lookalike demo` take with the bundled digits, and how good are the results?

    python -m benchmarks.demo

The demo is timed twice, from the start of the process to its first answer over HTTP. The first run
starts in an empty directory. Before the second run, all steps are done.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from benchmarks.look_alikes import precision_of_look_alikes
from benchmarks.record import ROOT, record
from indexer.opening import open_index
from training.data.datasets import held_out_examples
from training.network.model import read_card


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with TemporaryDirectory() as scratch:
        workdir = Path(scratch, "demo")
        first_s, again_s = time_to_answer(workdir), time_to_answer(workdir)
        metrics = read_card(workdir / "model").metrics
        opened = open_index(workdir / "index")
        precision = precision_of_look_alikes(held_out_examples("digits"), opened, k=6)
        figures = {
            "first_run_to_http_s": round(first_s, 1),
            "second_run_to_http_s": round(again_s, 1),
            "held_out_images": metrics["num_images"],
            "top1": metrics["top1"],
            "precision_at_6": round(precision, 4),
        }
        record("demo", figures, model=workdir / "model")


def time_to_answer(
    workdir: Path, options: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> float:
    """Seconds from the start of `lookalike demo` to its first answer to a request."""
    started = time.perf_counter()
    command = [sys.executable, "lookalike.py", "demo", *options]
    command += ["--workdir", str(workdir), "--port", "0"]
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        urls = (re.search(r"http://\S+", line) for line in process.stdout)
        url = next(match[0] for match in urls if match)
        with urlopen(f"{url}/readyz") as answer:
            json.load(answer)
        elapsed_s = time.perf_counter() - started
        process.terminate()
    return elapsed_s


if __name__ == "__main__":
    main()
