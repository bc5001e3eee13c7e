"""`make bench`: list the benchmarks, and run those that the machine can run in an hour.

    python -m benchmarks [--imagenette DIR] [--clothing DIR] [--photo FILE] [--model MODEL]
        [--index INDEX] [--workdir runs/bench] [--minutes 60] [--list]

By default, only the benchmarks that need no data run. The directory --imagenette contains the
folders `train` and `val`. The directory --clothing contains the folders `test` and `validation`.
Each of these folders contains one folder per class. FILE is a JPEG of 400 x 533 pixels. MODEL is
the directory of a model that was trained on Imagenette's `train`. INDEX is an index of the same
images, built with MODEL. All benchmarks are listed with their commands. A benchmark is skipped if
its data is missing or if it does not fit into the time. Each benchmark writes its record into
benchmarks/results.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from benchmarks.record import RESULTS, ROOT

OPTIONS = ("imagenette", "clothing", "photo", "model", "index", "workdir")
"""Options of this program that can be arguments of a benchmark."""


@dataclass(frozen=True)
class Benchmark:
    """A program in this folder, with the arguments for one record."""

    module: str
    result: str
    """Name of the record."""
    minutes: float
    """Estimated duration on two cores. It is used if no record contains a measured duration."""
    arguments: str = ""
    """Arguments of the program. A word in braces is an option in OPTIONS that it needs."""

    @property
    def question(self) -> str:
        """The question that the benchmark answers: the first line of its docstring."""
        return (import_module(f"benchmarks.{self.module}").__doc__ or "").splitlines()[0]

    def missing(self, given: Mapping[str, str | None]) -> list[str]:
        """The options that the benchmark needs and that were not given."""
        return [name for name in given if f"{{{name}}}" in self.arguments and not given[name]]

    def command(self, given: Mapping[str, str | None]) -> list[str]:
        """The words after `python -m`. A missing option is shown as its name in capitals."""
        values = {name: value or name.upper() for name, value in given.items()}
        return [f"benchmarks.{self.module}", *shlex.split(self.arguments.format(**values))]

    def duration_min(self) -> float:
        """The duration in minutes: the measured duration, or the estimate if there is none."""
        file = RESULTS / f"{self.result}.json"
        seconds = json.loads(file.read_text("utf-8")).get("duration_s") if file.exists() else None
        return seconds / 60 if seconds else self.minutes


BENCHMARKS = (
    Benchmark("demo", "demo", 2),
    Benchmark("demo_photos", "demo_photos", 2, "{clothing}/validation"),
    Benchmark("service_start", "service_start", 6),
    Benchmark("service_crashes", "service_crashes", 8, "--kills 100"),
    Benchmark("service_load", "service_load", 15, "{photo}"),
    Benchmark("service_soak", "service_soak", 33, "{photo} --minutes 30"),
    Benchmark("bombs", "bombs", 6, "{clothing} {imagenette}/val"),
    Benchmark("index_growth", "index_growth", 8, "{workdir}/growth --kind flat"),
    Benchmark("index_crashes", "index_crashes", 10, "--kills 200"),
    Benchmark("training_speed", "training_speed", 6, "{imagenette} --steps 16 --rounds 4"),
    Benchmark(
        "training_speed",
        "training_speed_224",
        7,
        "{imagenette} --image-size 224 --steps 5 --rounds 3 --name training_speed_224",
    ),
    Benchmark("training_memory", "training_memory", 6, "{imagenette}"),
    Benchmark("probe", "probe", 2, "{model} {clothing}/test {clothing}/validation"),
    Benchmark("duplicates", "duplicates", 8, "{model} {clothing} {imagenette}/val --images 75"),
    Benchmark("training_accuracy", "training_accuracy", 4, "{model} {imagenette}/val"),
    Benchmark("int8", "int8", 20, "{model} {imagenette}"),
    Benchmark(
        "small_collections", "small_collections", 300, "{imagenette} --workdir {workdir}/small"
    ),
    Benchmark(
        "fine_tuning",
        "fine_tuning",
        90,
        "{model} {clothing}/test --val {clothing}/validation --workdir {workdir}/fine-tuning",
    ),
    Benchmark("look_alikes", "look_alikes", 6, "{model} {index} {imagenette}/val"),
    Benchmark("mislabelled", "mislabelled", 3, "{index}"),
    Benchmark(
        "indexing",
        "indexing",
        40,
        "{model} {clothing} {imagenette} --rounds 3 --most 20000 --images 2000 10000",
    ),
    Benchmark(
        "codes_speed",
        "codes_speed",
        40,
        "{model} {imagenette}/train {imagenette}/val {workdir}/speed",
    ),
    Benchmark("search_kinds", "search_kinds", 60, "--directory {workdir}/kinds"),
    Benchmark(
        "codes",
        "codes_imagenette",
        120,
        "{model} {imagenette}/train {imagenette}/val --name imagenette --cache {workdir}/features",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in OPTIONS[:-1]:
        parser.add_argument(f"--{name}")
    parser.add_argument("--workdir", default="runs/bench")
    parser.add_argument(
        "--minutes", type=float, default=60, help="maximum total duration of all benchmarks"
    )
    parser.add_argument("--list", action="store_true", help="only print the plan")
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in OPTIONS}
    chosen = choose(BENCHMARKS, given, arguments.minutes)
    if not arguments.list:
        run(chosen, given)


def choose(
    benchmarks: Sequence[Benchmark], given: Mapping[str, str | None], max_minutes: float
) -> list[Benchmark]:
    """Print the plan for each benchmark. Return the benchmarks that can run.

    A benchmark can run if its data was given and it fits into the time.
    """
    chosen, total_min = [], 0.0
    for benchmark in benchmarks:
        duration_min, missing = benchmark.duration_min(), benchmark.missing(given)
        if missing:
            plan = f"skipped: needs {', '.join(f'--{name}' for name in missing)}"
        elif total_min + duration_min > max_minutes:
            plan = f"skipped: does not fit into {max_minutes:.0f} minutes; pass --minutes"
        else:
            plan = "runs"
            chosen.append(benchmark)
            total_min += duration_min
        print(f"{benchmark.result} (about {max(duration_min, 1):.0f} min, {plan})")
        print(f"    {benchmark.question}")
        print(f"    python -m {shlex.join(benchmark.command(given))}")
    print(f"{len(chosen)} of {len(benchmarks)} benchmarks run, about {total_min:.0f} min in all")
    return chosen


def run(benchmarks: Sequence[Benchmark], given: Mapping[str, str | None]) -> None:
    """Run each benchmark in its own process. If one fails, exit with status 1 at the end."""
    failed = []
    for benchmark in benchmarks:
        print(f"\n{benchmark.result}", flush=True)
        command = [sys.executable, "-m", *benchmark.command(given)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(benchmark.result)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
