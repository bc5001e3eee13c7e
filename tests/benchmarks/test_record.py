import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import record as module
from benchmarks.record import has_uncommitted_changes, model_facts, record


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one committed source file."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "source.py").write_text("a = 1\n")
    _git(root, "init", "--quiet")
    _git(root, "add", ".")
    _git(root, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "First")
    return root


def _git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


@pytest.fixture
def results(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the records, in a repository of its own."""
    folder = repository / "benchmarks" / "results"
    folder.parent.mkdir()
    monkeypatch.setattr(module, "ROOT", repository)
    monkeypatch.setattr(module, "RESULTS", folder)
    return folder


def test_a_committed_tree_is_clean_and_a_changed_source_makes_it_dirty(repository: Path) -> None:
    assert not has_uncommitted_changes(repository)
    (repository / "source.py").write_text("a = 2\n")
    assert has_uncommitted_changes(repository)


def test_a_new_source_file_makes_the_tree_dirty(repository: Path) -> None:
    (repository / "new.py").write_text("")
    assert has_uncommitted_changes(repository)


@pytest.mark.parametrize("file", ["benchmarks/results/demo.json", "docs/codes.png"])
def test_what_benchmarks_write_does_not_make_the_tree_dirty(repository: Path, file: str) -> None:
    (repository / file).parent.mkdir(parents=True)
    (repository / file).write_text("")
    assert not has_uncommitted_changes(repository)


def test_a_record_says_that_the_tree_was_dirty_and_warns(
    repository: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("clean", {"ms": 1})
    assert "warning" not in capsys.readouterr().err
    (repository / "source.py").write_text("a = 2\n")
    record("changed", {"ms": 1})
    assert "uncommitted changes" in capsys.readouterr().err
    clean, changed = (json.loads((results / f"{name}.json").read_text()) for name in RECORDS)
    assert (clean["is_dirty"], changed["is_dirty"]) == (False, True)
    assert clean["commit"] == changed["commit"] != "unknown"


RECORDS = ("clean", "changed")


def test_a_record_holds_no_figure_of_an_earlier_one(results: Path) -> None:
    record("search", {"ms": 1, "recall": 0.9})
    record("search", {"ms": 2})
    assert json.loads((results / "search.json").read_text())["figures"] == {"ms": 2}


def test_a_record_names_the_model_that_was_used(results: Path, tiny_model: Path) -> None:
    record("search", {"ms": 1}, model=tiny_model)
    facts = json.loads((results / "search.json").read_text())["model"]
    assert facts == model_facts(tiny_model)
    assert len(facts["id"]) == 12
    assert (facts["architecture"]["layout"], facts["trained_on"]) == ("paper", "colours")
    assert facts["epochs"] is None  # it was never trained
