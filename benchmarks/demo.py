"""How long is the road with the bundled digits, from nothing to answering HTTP, and again; and how good is what comes out?

python -m benchmarks.demo
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from benchmarks.look_alikes import precision_of_look_alikes
from benchmarks.record import record
from indexer.opening import open_for_queries
from training.data.datasets import held_out_examples
from training.network.model import read_card


def main() -> None:
    with TemporaryDirectory() as scratch:
        workdir = Path(scratch, "demo")
        first_s, again_s = _time_to_answer(workdir), _time_to_answer(workdir)
        metrics = read_card(workdir / "model").metrics
        _, embedder, searcher = open_for_queries(workdir / "index")
        precision = precision_of_look_alikes(held_out_examples("digits"), embedder, searcher, k=6)
        record(
            "demo",
            {
                "first_run_to_http_s": round(first_s, 1),
                "second_run_to_http_s": round(again_s, 1),
                "held_out_images": metrics["num_images"],
                "top1": metrics["top1"],
                "precision_at_6": round(precision, 4),
            },
        )


def _time_to_answer(workdir: Path) -> float:
    """Seconds from the start of `lookalike demo` to its first answer to a request."""
    started = time.perf_counter()
    command = [sys.executable, "lookalike.py", "demo", "--workdir", str(workdir), "--port", "0"]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = next(
            found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))
        )
        with urlopen(f"{address}/readyz") as answer:
            json.load(answer)
        elapsed_s = time.perf_counter() - started
        process.terminate()
    return elapsed_s


if __name__ == "__main__":
    main()
