"""What a measurement has to say beside its figures, and where it is kept."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "onnxruntime",
    "faiss-gpu",
    "faiss-cpu",
    "numpy",
    "scikit-learn",
    "pillow",
    "fastapi",
)


def record(name: str, figures: Mapping[str, Any]) -> None:
    """Prints the figures and writes results/NAME.json with the command, machine, versions and commit."""
    module = sys.modules["__main__"].__spec__
    command = [
        "python",
        "-m",
        module.name.removesuffix(".__main__") if module else name,
        *sys.argv[1:],
    ]
    content = {
        "figures": dict(figures),
        "command": shlex.join(command),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := _version(name))},
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    print(json.dumps(content["figures"], indent=2))


def machine() -> str:
    """The processor, the number of cores and the memory, in words."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kb = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return f"{cpu}, {os.cpu_count()} cores, {memory_kb / 2**20:.0f} GiB, {platform.system()} {platform.machine()}"


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return found.stdout.strip() or "unknown"
