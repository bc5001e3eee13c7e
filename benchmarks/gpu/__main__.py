"""Does Lookalike work on this GPU, and how fast is it?

    python -m benchmarks.gpu [--data DATA] [--parts NAME ...] [--skip NAME ...] [--minutes 25]
        [--workdir runs/gpu] [--out benchmarks/results] [--again] [--small]

The parts run in the order of their worth, each in its own process: a crash or a time limit ends
only that part. The record OUT/gpu.json is written after every part. The same command continues an
interrupted run: what has been measured at the same commit on the same device is not measured again,
unless --again is given. Nothing is installed and no network is used. A measurement that lacks a
library, the data or a GPU says so.

DATA is a folder with `train` and `val`, for example Imagenette. benchmarks.gpu_bundle packs a small
copy of it. --small runs every part in seconds, on a CPU too, to see that all of them work. Its
record is OUT/gpu_small.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from benchmarks.record import RESULTS, ROOT, commit_of, write_record
from training.devices import best_device, device_name

TERMINATED = "the time limit ended this part; run the command again to continue"


@dataclass(frozen=True)
class Part:
    """A module `benchmarks.gpu.NAME` with a function `run(job)`."""

    name: str
    minutes: float
    """Maximum duration."""
    question: str


PARTS = (
    Part("tests", 5, "do the tests marked `gpu` pass?"),
    Part("embedding", 2, "are the features those of the CPU, and how fast are they computed?"),
    Part("throughput", 6, "how many images per second does training read, and what bounds it?"),
    Part("search", 7, "does FAISS find the same neighbours on the GPU, and how fast?"),
    Part("learning", 4, "does a short training reach its accuracy, and how long does it take?"),
    Part("codes", 2, "are codes learned on the GPU as good, and how fast are they learned?"),
    Part("service", 2, "how many requests per second does the service answer?"),
)
NAMES = tuple(part.name for part in PARTS)


def main() -> None:
    arguments = _arguments()
    device = best_device()
    if device.type == "cpu" and not arguments.small:
        raise SystemExit("torch can use no GPU here; pass --small to try every part on the CPU")
    name = "gpu_small" if arguments.small else "gpu"
    setup = {"commit": commit_of(ROOT)[0], "device": device_name(device)}
    workdir = Path(arguments.workdir, name)
    _keep_only(workdir, setup, again=arguments.again)
    figures: dict[str, Any] = {**setup, "environment": environment(), "parts": {}}
    deadline_s = monotonic() + 60 * arguments.minutes
    for part in PARTS:
        limit_s = min(60 * part.minutes, deadline_s - monotonic())
        chosen = part.name in arguments.parts and part.name not in arguments.skip
        if chosen and limit_s > 0:
            print(f"{part.name}: {part.question}", flush=True)
            figures["parts"][part.name] = run_part(part, workdir, arguments, limit_s)
        elif earlier := _read(workdir / f"{part.name}.json"):
            figures["parts"][part.name] = {"figures": earlier}
        else:
            reason = "no time was left" if chosen else "not asked for"
            figures["parts"][part.name] = {"skipped": reason}
        write_record(name, figures, directory=arguments.out)
    print(summary(figures))
    print(f"The record is {Path(arguments.out, name)}.json")
    raise SystemExit(has_errors(figures))


def run_part(
    part: Part, workdir: Path, arguments: argparse.Namespace, limit_s: float
) -> dict[str, Any]:
    """Run a part in its own process. Return its figures, and an error if the process failed."""
    file = workdir / f"{part.name}.json"
    command = [sys.executable, "-m", "benchmarks.gpu.run_part", part.name, str(file)]
    command += ["--workdir", str(workdir)]
    command += ["--data", str(Path(arguments.data).absolute())] if arguments.data else []
    command += ["--small"] if arguments.small else []
    started_s = perf_counter()
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=limit_s, check=False).returncode
        error = f"the process ended with status {status}" if status else None
    except subprocess.TimeoutExpired:
        error = TERMINATED
    done: dict[str, Any] = {"seconds": round(perf_counter() - started_s, 1)}
    return done | {"figures": _read(file)} | ({"error": error} if error else {})


def environment() -> dict[str, Any]:
    """The GPU, its driver and the versions that decide about speed. None for what is missing."""
    import torch

    facts: dict[str, Any] = {"cuda": torch.version.cuda, "num_cores": os.cpu_count()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["compute_capability"] = f"{properties.major}.{properties.minor}"
        facts["memory_gib"] = round(properties.total_memory / 2**30, 1)
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["driver"] = _driver()
    return facts


def summary(figures: dict[str, Any]) -> str:
    """One line per measurement of a record: what is missing, what failed, what was measured."""
    lines = []
    for name, part in figures["parts"].items():
        lines += [f"{name}: {key}: {part[key]}" for key in ("skipped", "error") if key in part]
        for measurement, values in part.get("figures", {}).items():
            text = json.dumps({key: value for key, value in values.items() if key != "profile"})
            lines.append(f"{name}, {measurement}: {text}")
    return "\n".join(lines)


def has_errors(figures: dict[str, Any]) -> bool:
    """Whether a part or a measurement of a record failed."""
    parts = figures["parts"].values()
    return any(
        "error" in part or any("error" in values for values in part.get("figures", {}).values())
        for part in parts
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--skip", nargs="+", choices=NAMES, default=())
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--workdir", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure everything again")
    parser.add_argument("--small", action="store_true", help="seconds per part, on a CPU too")
    return parser.parse_args()


def _keep_only(workdir: Path, setup: dict[str, str], *, again: bool) -> None:
    """Keep the figures of an earlier run in `workdir` if its setup was the same."""
    file = workdir / "setup.json"
    if again or _read(file) != setup:
        shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(setup), "utf-8")


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def _driver() -> str | None:
    """The version of NVIDIA's driver."""
    file = Path("/sys/module/nvidia/version")
    if file.exists():
        return file.read_text().strip()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if not shutil.which(query[0]):
        return None
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
