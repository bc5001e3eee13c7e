"""The rules of the house that a machine can hold: which way imports run, what the service does without, what the locks say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAY_IMPORT = {
    "training": {"training"},
    "indexer": {"indexer", "training"},
    "service": {"service", "indexer", "training"},
}
EXTRAS_OF_LOCKS = {"service": ["service"], "full": ["full"], "dev": ["full", "dev"]}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_itself_and_those_below(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        upward = {name for name in _imports(file) if name in MAY_IMPORT} - MAY_IMPORT[package]
        assert not upward, (
            f"{file.relative_to(ROOT)} imports {upward}; service -> indexer -> training is the one direction"
        )


def test_the_service_and_search_commands_import_none_of_the_training_libraries() -> None:
    program = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "safetensors", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas"):
    sys.modules[name] = None  # importing it now raises
import lookalike, service.cli, service.app, service.demo, indexer.cli
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_library_imported_is_named_in_pyproject() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = {
        canonicalize_name(Requirement(line).name)
        for lines in (PROJECT["dependencies"], *extras.values())
        for line in lines
    }
    providers = packages_distributions()
    for file in [
        ROOT / "lookalike.py",
        *(file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")),
    ]:
        for name in (
            set(_imports(file)) - set(sys.stdlib_module_names) - set(MAY_IMPORT) - {"lookalike"}
        ):
            found = {canonicalize_name(provider) for provider in providers.get(name, [])}
            assert found & declared, (
                f"{file.relative_to(ROOT)} imports {name}, which no dependency in pyproject.toml brings"
            )


@pytest.mark.parametrize("lock", EXTRAS_OF_LOCKS)
def test_a_lock_has_what_pyproject_asks_for(lock: str) -> None:
    pins: dict[str, list[Version]] = {}
    for name, version in re.findall(
        r"^([a-z0-9-]+)==(\S+)", (ROOT / f"requirements/{lock}.txt").read_text(), re.MULTILINE
    ):
        pins.setdefault(name, []).append(Version(version))
    extras = PROJECT["optional-dependencies"]
    for line in [
        *PROJECT["dependencies"],
        *(line for extra in EXTRAS_OF_LOCKS[lock] for line in extras[extra]),
    ]:
        wanted = Requirement(line)
        versions = pins.get(canonicalize_name(wanted.name), [])
        assert versions, f"requirements/{lock}.txt lacks {wanted.name}; run `make lock`"
        assert all(version in wanted.specifier for version in versions), (
            f"requirements/{lock}.txt is not within {line}; run `make lock`"
        )


def test_the_service_lock_has_no_torch() -> None:
    assert not re.search(
        r"^(torch|nvidia-|faiss-gpu)", (ROOT / "requirements/service.txt").read_text(), re.MULTILINE
    )


def test_the_locks_name_no_place_to_download_from() -> None:
    for file in (ROOT / "requirements").iterdir():
        assert not re.search(r"\w+://|^--", file.read_text(), re.MULTILINE), (
            f"{file.name} names a URL or an index; run `make lock`"
        )


def test_the_changelog_begins_with_the_version_of_pyproject() -> None:
    versions = re.findall(
        r"^## \[?v?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert versions[0] == PROJECT["version"]


def _imports(file: Path) -> Iterator[str]:
    """The first part of every module's name that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
