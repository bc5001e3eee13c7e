"""The outcome of a test run, read from its JUnit report."""

from pathlib import Path

from benchmarks.gpu.tests import counts

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="7">
<testcase classname="tests.a" name="test_works" />
<testcase classname="tests.a" name="test_fails"><failure message="assert 1 == 2" /></testcase>
<testcase classname="tests.b" name="test_cannot_start"><error message="no GPU" /></testcase>
</testsuite></testsuites>
"""


def test_a_report_is_counted_and_the_failures_are_named(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert counts(tmp_path / "report.xml") == {
        "passed": 3,
        "failed": 2,
        "skipped_tests": 2,
        "error": "not all tests passed",
        "failures": {"tests.a.test_fails": "assert 1 == 2", "tests.b.test_cannot_start": "no GPU"},
    }
