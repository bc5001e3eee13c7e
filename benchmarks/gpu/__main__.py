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
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from benchmarks.record import RESULTS, ROOT, commit_of, write_record
from training.devices import best_device, device_name
from training.parallel import num_cores

NO_TIME = "no time was left; run the command again to continue"
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
    setup = {
        "commit": commit_of(ROOT)[0],
        "sources": sources_sha256(ROOT),
        "device": device_name(device),
    }
    workdir = Path(arguments.workdir, name)
    _keep_only(workdir, setup, again=arguments.again)
    figures: dict[str, Any] = {**setup, "environment": environment(), "parts": {}}
    chosen = [
        part for part in PARTS if part.name in arguments.parts and part.name not in arguments.skip
    ]
    # A small run uses one process, because starting a process takes longer than a part.
    groups = [chosen] if arguments.small else [[part] for part in chosen]
    deadline_s = monotonic() + 60 * arguments.minutes
    errors: dict[str, str | None] = {}
    for group in groups:
        limit_s = min(60 * sum(part.minutes for part in group), deadline_s - monotonic())
        for part in group:
            print(f"{part.name}: {part.question}", flush=True)
        error = run_parts(group, workdir, arguments, limit_s) if limit_s > 0 else NO_TIME
        errors |= {part.name: error for part in group}
        figures["parts"] = read_parts(workdir, errors)
        write_record(name, figures, directory=arguments.out)
    print(summary(figures))
    print(f"The record is {Path(arguments.out, name)}.json")
    raise SystemExit(has_errors(figures))


def run_parts(
    parts: Sequence[Part], workdir: Path, arguments: argparse.Namespace, limit_s: float
) -> str | None:
    """Run parts in a process of their own. Return an error if the process failed."""
    command = [sys.executable, "-m", "benchmarks.gpu.run_part", *(part.name for part in parts)]
    command += ["--workdir", str(workdir)]
    command += ["--data", str(Path(arguments.data).absolute())] if arguments.data else []
    command += ["--small"] if arguments.small else []
    started_s = perf_counter()
    error = _run_group(command, limit_s)
    if error and error != TERMINATED:
        # A crash costs only its own measurement. The second attempt makes the others.
        error = _run_group([*command, "--without-failed"], limit_s - (perf_counter() - started_s))
    return error


def read_parts(workdir: Path, errors: Mapping[str, str | None]) -> dict[str, Any]:
    """The figures of all parts so far. `errors` names the parts that this run was asked for."""
    parts: dict[str, Any] = {}
    for part in PARTS:
        figures = _read(workdir / f"{part.name}.json")
        parts[part.name] = {"figures": figures} if figures else {"skipped": "not asked for"}
        if error := errors.get(part.name):
            parts[part.name]["error"] = error
    return parts


def _run_group(command: Sequence[str], limit_s: float) -> str | None:
    """Run a command, and end it and all its child processes at the limit. Return an error."""
    threads = {"OMP_NUM_THREADS": str(num_cores())}
    with subprocess.Popen(
        command, cwd=ROOT, env=threads | os.environ, start_new_session=True
    ) as process:
        try:
            status = process.wait(max(limit_s, 0))
        except subprocess.TimeoutExpired:
            return TERMINATED
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return f"the process ended with status {status}" if status else None


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


def sources_sha256(root: Path) -> str:
    """The SHA-256 of all Python sources of the project."""
    digest = hashlib.sha256()
    for package in ("training", "indexer", "service", "benchmarks"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _keep_only(workdir: Path, setup: dict[str, str], *, again: bool) -> None:
    """Remove the figures of an earlier run in `workdir` if its setup was another.

    Decoded images and indexes stay, because they do not depend on the setup.
    """
    file = workdir / "setup.json"
    if again or _read(file) != setup:
        for part in PARTS:
            (workdir / f"{part.name}.json").unlink(missing_ok=True)
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
