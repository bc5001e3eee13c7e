"""Records: the figures of one run of one benchmark, and the conditions of that run.

All figures of a record come from one process at one commit. No figure is copied from an earlier
record.
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.network.model import read_card

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
WRITTEN_BY_BENCHMARKS = ("benchmarks/results", "docs")
"""Changes in these folders do not count as uncommitted, because no figure depends on them."""
COMMIT_FILE = "COMMIT"
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
_started_s = time.monotonic()


def record(name: str, figures: Mapping[str, Any], *, model: Path | None = None) -> None:
    """Print the figures, and write the record of this run.

    `model` is the directory of the trained model, if the benchmark uses one. If the sources have
    uncommitted changes, a warning is printed, and the record contains `"is_dirty": true`.
    """
    if write_record(name, figures, model=model):
        print(
            f"warning: the tree has uncommitted changes, and results/{name}.json records this; "
            "before you quote these figures, commit or stash the changes and measure again",
            file=sys.stderr,
        )
    print(json.dumps(dict(figures), indent=2))


def write_record(
    name: str,
    figures: Mapping[str, Any],
    *,
    model: Path | None = None,
    directory: Path | None = None,
) -> bool:
    """Write the figures and the conditions of the run to `directory`/NAME.json.

    The default of `directory` is benchmarks/results. Returns whether the sources have uncommitted
    changes.
    """
    commit, is_dirty = commit_of(ROOT)
    content = {
        "figures": dict(figures),
        **({"model": model_facts(model)} if model else {}),
        "command": _command(name),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "duration_s": round(time.monotonic() - _started_s),
        "commit": commit,
        "is_dirty": is_dirty,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: number for package in PACKAGES if (number := _version(package))},
        },
    }
    directory = directory or RESULTS
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return is_dirty


def commit_of(root: Path) -> tuple[str, bool]:
    """The commit of the sources at `root`, and whether they have uncommitted changes.

    Outside a git repository, both come from the file COMMIT_FILE that benchmarks.gpu_bundle writes.
    """
    if (file := root / COMMIT_FILE).exists():
        commit, _, state = file.read_text("utf-8").partition(" ")
        return commit.strip(), bool(state.strip())
    return _git(root, "describe", "--always") or "unknown", has_uncommitted_changes(root)


def model_facts(directory: Path) -> dict[str, Any]:
    """The facts that identify a model: its id, its architecture, and its training data."""
    card = read_card(directory)
    return {
        "id": card.id[:12],
        "directory": directory.name,
        "architecture": dict(card.architecture),
        "trained_on": Path(str(card.data.get("name", "unknown"))).name,
        "num_training_images": card.data.get("num_train"),
        "epochs": card.recipe.get("epochs"),
    }


def has_uncommitted_changes(root: Path) -> bool:
    """Whether the sources at `root` differ from the last commit.

    The result is False outside a git repository.
    """
    excluded = (f":(exclude){folder}" for folder in WRITTEN_BY_BENCHMARKS)
    return bool(_git(root, "status", "--porcelain", "--", ".", *excluded))


def machine() -> str:
    """A line of text with the processor, the number of cores, the memory and the system."""
    models = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.processor()
    totals = [int(line.split()[1]) for line in _lines("/proc/meminfo") if "MemTotal" in line]
    memory_gib = (totals[0] if totals else 0) / 2**20
    system = f"{platform.system()} {platform.machine()}"
    return f"{processor}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {system}"


def _command(name: str) -> str:
    """The command that started this process."""
    module = sys.modules["__main__"].__spec__
    program = module.name.removesuffix(".__main__") if module else name
    return shlex.join(["python", "-m", program, *sys.argv[1:]])


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str:
    if not shutil.which("git"):
        return ""
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=root
    )
    return done.stdout.strip()
