import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as module
from benchmarks.__main__ import BENCHMARKS, OPTIONS, Benchmark, choose, run

NOTHING: dict[str, str | None] = dict.fromkeys(OPTIONS)


def test_a_benchmark_without_its_data_is_listed_and_does_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark = Benchmark("duplicates", "none-such", 8, "{model} {imagenette}/val --images 75")
    assert choose([benchmark], {**NOTHING, "model": "m"}, 60) == []
    out = capsys.readouterr().out
    assert "about 8 min, skipped: needs --imagenette" in out
    assert "python -m benchmarks.duplicates m IMAGENETTE/val --images 75" in out
    assert choose([benchmark], {**NOTHING, "model": "m", "imagenette": "i"}, 60) == [benchmark]


def test_benchmarks_run_in_order_as_long_as_they_fit_into_the_time() -> None:
    long, short = Benchmark("demo", "none-such", 50), Benchmark("demo", "none-such", 10)
    assert choose([long, short, short], NOTHING, 60) == [long, short]


def test_the_duration_of_a_record_replaces_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    (tmp_path / "demo.json").write_text('{"duration_s": 90}')
    (tmp_path / "old.json").write_text("{}")
    assert Benchmark("demo", "demo", 2).duration_min() == 1.5
    assert Benchmark("demo", "old", 2).duration_min() == 2


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=[one.result for one in BENCHMARKS])
def test_every_benchmark_understands_the_arguments_that_it_is_given(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--help` after the arguments reaches argparse only if it accepts what comes before."""
    given = {name: name for name in OPTIONS}
    _, *arguments = benchmark.command(given)
    monkeypatch.setattr(sys, "argv", [benchmark.module, *arguments, "--help"])
    with pytest.raises(SystemExit) as exit_info:
        import_module(f"benchmarks.{benchmark.module}").main()
    assert exit_info.value.code == 0
    assert benchmark.question.endswith("?")


def test_a_benchmark_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "broken.py").write_text("raise SystemExit(3)")
    (package / "works.py").write_text("open('done', 'w').close()")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="failed: broken"):
        run([Benchmark("broken", "broken", 1), Benchmark("works", "works", 1)], NOTHING)
    assert (tmp_path / "done").exists()
