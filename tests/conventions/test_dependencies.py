"""The service starts without the training libraries; pyproject.toml, locks and changelog agree."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conventions.sources import PACKAGES, ROOT, imported_names, package_modules

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
EXTRAS_OF_LOCKS = {"service": ["service"], "full": ["full"], "dev": ["full", "dev"]}
TRAINING_LIBRARIES = (
    "torch torchvision onnx onnxscript safetensors sklearn scipy matplotlib pyarrow pandas"
)


def test_the_service_and_the_search_commands_import_none_of_the_training_libraries() -> None:
    program = f"""
import sys
for name in {TRAINING_LIBRARIES.split()!r}:
    sys.modules[name] = None  # importing it now raises
import lookalike, service.cli, service.app, service.demo, indexer.cli
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_imported_library_is_named_in_pyproject() -> None:
    declared = {canonicalize_name(one.name) for one in _requirements(*EXTRAS)}
    distributions = packages_distributions()
    for file in [ROOT / "lookalike.py", *package_modules().values()]:
        names = {name.partition(".")[0] for name in imported_names(file)}
        for name in names - set(sys.stdlib_module_names) - {*PACKAGES, "lookalike"}:
            providers = {canonicalize_name(provider) for provider in distributions.get(name, [])}
            assert providers & declared, (
                f"{file.relative_to(ROOT)} imports {name}, "
                "which no dependency in pyproject.toml provides"
            )


@pytest.mark.parametrize("lock", EXTRAS_OF_LOCKS)
def test_a_lock_has_what_pyproject_asks_for(lock: str) -> None:
    pins: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", _lock(lock), re.MULTILINE):
        pins.setdefault(name, []).append(Version(version))
    for requirement in _requirements(*EXTRAS_OF_LOCKS[lock]):
        versions = pins.get(canonicalize_name(requirement.name), [])
        assert versions, f"requirements/{lock}.txt lacks {requirement.name}; run `make lock`"
        assert all(version in requirement.specifier for version in versions), (
            f"requirements/{lock}.txt is not within {requirement}; run `make lock`"
        )


def test_the_lock_for_development_has_the_build_backend() -> None:
    """`make setup` builds without isolation, so that nothing is fetched without a hash."""
    assert set(PYPROJECT["build-system"]["requires"]) <= set(EXTRAS["dev"])


def test_the_service_lock_has_no_torch() -> None:
    assert not re.search(r"^(torch|nvidia-|faiss-gpu)", _lock("service"), re.MULTILINE)


def test_the_locks_name_no_place_to_download_from() -> None:
    for file in (ROOT / "requirements").iterdir():
        assert not re.search(r"\w+://|^--", file.read_text("utf-8"), re.MULTILINE), (
            f"{file.name} names a URL or an index; run `make lock`"
        )


def test_the_changelog_begins_with_the_version_of_pyproject() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert versions[0] == PROJECT["version"]


def _requirements(*extras: str) -> list[Requirement]:
    """What the project needs with these extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def _lock(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text("utf-8")
