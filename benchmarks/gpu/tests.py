"""Run the tests marked `gpu`."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.job import Job, need
from benchmarks.record import ROOT

PYTEST = "import sys, torch, pytest; sys.exit(pytest.main(sys.argv[1:]))"
"""Torch is imported first, for the sake of FAISS."""
TEST_TIMEOUT_S = 90


def run(job: Job) -> None:
    job.measure("gpu", lambda: _run_tests(job))


def _run_tests(job: Job) -> Mapping[str, Any]:
    need("pytest", "pytest_timeout", "hypothesis", "onnx", "onnxscript", "onnxruntime", "faiss")
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if _has_mark(file)]
    files = job.size(files[-2:], files)
    report = job.workdir / "tests.xml"
    report.unlink(missing_ok=True)
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    # Another torch can have warnings of its own. A test that hangs must not cost the whole part.
    options += ["-W", "default", f"--timeout={TEST_TIMEOUT_S}"]
    command = [sys.executable, "-c", PYTEST, *options, *files]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if not report.exists():
        raise RuntimeError(f"pytest ended with status {status} before it ran a test")
    figures = counts(report)
    if job.is_gpu and (figures["skipped_tests"] or not figures["passed"]):
        figures["error"] = "not all tests ran"
    return figures


def counts(report: Path) -> dict[str, Any]:
    """The number of tests by outcome in a JUnit report, and the first line of each failure."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    numbers = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    num_failed = numbers["failures"] + numbers["errors"]
    failures = {
        f"{case.get('classname')}.{case.get('name')}": problem.get("message", "")[:200]
        for case in suite.iter("testcase")
        for problem in [*case.findall("failure"), *case.findall("error")]
    }
    return {
        "passed": numbers["tests"] - num_failed - numbers["skipped"],
        "failed": num_failed,
        "skipped_tests": numbers["skipped"],
        **({"failures": failures, "error": "not all tests passed"} if failures else {}),
    }


def _has_mark(file: Path) -> bool:
    return "mark.gpu" in file.read_text("utf-8")
