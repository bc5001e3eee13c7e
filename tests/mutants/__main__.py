"""`make test-mutants`: put each fault of faults.toml into a copy of the project and run its tests.

    python -m tests.mutants [TEXT ...]

With TEXT, only the faults are tried whose sentence, file or tests contain it. First all tests that
the faults name run without a fault and must pass. Then at least one test must fail for each fault;
otherwise the exit status is 1. The working tree is not changed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from tests.conftest import SHARED_DATA
from tests.mutants.faults import ROOT, Fault, read_faults
from training.parallel import num_cores

NOT_COPIED = (".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "runs")
MAX_COPIES = 4
TIMEOUT_S = 240
"""For one test. A fault that makes a test hang is caught by this limit."""
PASSED, FAILED = 0, 1
"""Exit statuses of pytest. Any other means that the tests did not run."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="*", help="try only the faults that contain it")
    texts = parser.parse_args().text
    faults = [
        fault
        for fault in read_faults()
        if not texts or any(text in f"{fault.what} {fault.file} {fault.tests}" for text in texts)
    ]
    if not faults:
        raise SystemExit(f"no fault contains {' or '.join(texts)}")
    num_copies = min(num_cores(), len(faults), MAX_COPIES)
    with TemporaryDirectory() as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(num_copies):
            copies.put(copy_project(Path(folder, str(number))))
        _check_without_fault(faults, copies)
        with ThreadPoolExecutor(num_copies) as pool:
            are_caught = list(pool.map(lambda fault: try_fault(fault, copies), faults))
    print(f"{sum(are_caught)} of {len(faults)} faults are caught")
    raise SystemExit(0 if all(are_caught) else 1)


def copy_project(directory: Path) -> Path:
    return Path(shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*NOT_COPIED)))


def try_fault(fault: Fault, copies: "SimpleQueue[Path]") -> bool:
    """Whether the fault's tests fail. Prints one line, and pytest's output if they do not."""
    copy = copies.get()
    right = (copy / fault.file).read_bytes()
    started = time.perf_counter()
    try:
        fault.put_into(copy)
        done = run_tests(copy, fault.tests)
    finally:
        (copy / fault.file).write_bytes(right)
        copies.put(copy)
    is_caught = done.returncode == FAILED
    verdict = "caught" if is_caught else "NOT CAUGHT"
    if done.returncode not in (PASSED, FAILED):
        verdict = f"NOT TESTED (pytest ended with {done.returncode})"
    output = "" if is_caught else f"\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    seconds = time.perf_counter() - started
    print(f"{verdict}: {fault.what} {fault.file} ({seconds:.0f} s){output}", flush=True)
    return is_caught


def run_tests(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy of the project until one fails, as `make test` does, in one process."""
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--timeout={TIMEOUT_S}"]
    markers = "not gpu and not browser and not docker"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LOOKALIKE_SHARED_DATA": str(SHARED_DATA),
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-m", markers, *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _check_without_fault(faults: Sequence[Fault], copies: "SimpleQueue[Path]") -> None:
    """Exit if a test fails without a fault: it would seem to catch every fault."""
    copy = copies.get()
    done = run_tests(copy, sorted({test for fault in faults for test in fault.tests}))
    copies.put(copy)
    if done.returncode != PASSED:
        raise SystemExit(f"the tests fail without any fault\n{done.stdout[-3000:]}{done.stderr}")


if __name__ == "__main__":
    main()
