"""The tables in docs/architecture.md say which part of a package may import which."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.conventions.sources import PACKAGES, ROOT, imported_names, package_modules

ARCHITECTURE = ROOT / "docs" / "architecture.md"
MAX_LEVELS = 7
"""Of the parts of one package, the longest chain in which each imports the next."""


@dataclass(frozen=True)
class Part:
    """A row of the table: a sub-package, or modules that lie directly in a package's folder."""

    name: str
    modules: frozenset[str]
    """Dotted names of modules, and of folders with all that they hold."""
    may_import: frozenset[str]
    """Names of other parts."""


@cache
def parts() -> dict[str, Part]:
    """The rows of the tables, by name, in their order.

    A row is: part | folder or modules | what it holds | parts that it may import.
    """
    rows = {}
    for line in ARCHITECTURE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if len(cells) == 4 and (name := re.fullmatch(r"`([a-z]+\.[a-z]+)`", cells[0])):
            package = name[1].partition(".")[0]
            modules = re.findall(r"`([a-z_]+)(?:/|\.py)`", cells[1])
            rows[name[1]] = Part(
                name[1],
                frozenset(f"{package}.{module}" for module in modules),
                frozenset(re.findall(r"`([a-z]+\.[a-z]+)`", cells[3])),
            )
    return rows


def part_of(module: str) -> str | None:
    """The part that a module of the packages belongs to; None if the table does not list it."""
    names = [
        part.name
        for part in parts().values()
        if any(module == listed or module.startswith(f"{listed}.") for listed in part.modules)
    ]
    assert len(names) <= 1, f"docs/architecture.md lists {module} in {' and '.join(names)}"
    return names[0] if names else None


def imports_between_parts() -> Iterator[tuple[str, str, str]]:
    """(module, imported module, imported part) for each import that leaves a part."""
    modules = package_modules()
    for module, file in modules.items():
        for name in imported_names(file):
            imported = name if name in modules else name.rpartition(".")[0]
            if imported in modules and part_of(imported) != part_of(module):
                yield module, imported, str(part_of(imported))


def test_the_table_lists_every_module_in_one_part() -> None:
    unlisted = [module for module in package_modules() if not part_of(module)]
    assert not unlisted, f"add to a row of docs/architecture.md: {', '.join(unlisted)}"


def test_the_table_lists_only_modules_and_folders_that_exist() -> None:
    listed = {module for part in parts().values() for module in part.modules}
    missing = {
        module
        for module in listed
        if not (ROOT / f"{module.replace('.', '/')}.py").exists()
        and not (ROOT / module.replace(".", "/")).is_dir()
    }
    assert not missing


def test_a_module_imports_only_the_parts_that_the_table_allows() -> None:
    wrong = [
        f"{module} imports {imported}, but {part_of(module)} may not import {part}"
        for module, imported, part in imports_between_parts()
        if part not in parts()[str(part_of(module))].may_import
    ]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_the_table_allows_only_imports_that_exist() -> None:
    used = {(part_of(module), part) for module, _, part in imports_between_parts()}
    unused = [
        f"{part.name} does not import {other}"
        for part in parts().values()
        for other in sorted(part.may_import)
        if (part.name, other) not in used
    ]
    assert not unused, "take out of docs/architecture.md: " + "; ".join(unused)


def test_a_part_may_import_only_parts_above_it_in_the_table_so_there_are_no_cycles() -> None:
    above: set[str] = set()
    for part in parts().values():
        assert part.may_import <= above, f"{part.name} may import {part.may_import - above}"
        above.add(part.name)


def test_packages_import_in_one_direction() -> None:
    for part in parts().values():
        package = PACKAGES.index(part.name.partition(".")[0])
        for other in part.may_import:
            assert PACKAGES.index(other.partition(".")[0]) <= package


@pytest.mark.parametrize("package", PACKAGES)
def test_the_parts_of_a_package_lie_on_few_levels(package: str) -> None:
    levels: dict[str, int] = {}
    for part in parts().values():
        if part.name.startswith(f"{package}."):
            below = [levels[other] for other in part.may_import if other in levels]
            levels[part.name] = 1 + max(below, default=0)
    assert 1 <= max(levels.values()) <= MAX_LEVELS
