"""Sizes and places: files and functions that fit on a screen, and a test file for every module."""

import ast
from pathlib import Path

from tests.conventions.sources import PACKAGES, ROOT, package_modules, parse

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50
LONG_FILES: dict[str, str] = {}
"""Modules that may be longer, each with the reason."""
LONG_FUNCTIONS: dict[str, str] = {}
"""Functions (`module.function`) that may be longer, each with the reason."""
WITHOUT_TEST_FILE = {
    "service.api.dependencies": "one line that FastAPI runs for every request of every test",
}
"""Modules with logic but without a test file of their own name, each with the reason."""
TESTS_OF_NO_MODULE = {
    "indexer/storage/test_life.py": "the life of an index, through writer, compaction and reader",
    "service/api/test_openapi.py": "all routes, against the description of the API",
    "training/test_gpu.py": "every module of training that behaves differently on a GPU",
}
"""Test files that belong to no single module, each with the reason."""


def test_no_file_of_the_packages_is_too_long() -> None:
    lines = {
        name: len(file.read_text("utf-8").splitlines()) for name, file in package_modules().items()
    }
    too_long = {name: count for name, count in lines.items() if count > MAX_FILE_LINES}
    assert too_long.keys() == LONG_FILES.keys(), too_long


def test_no_function_of_the_packages_is_too_long() -> None:
    too_long = {
        f"{name}.{function.name}": _num_lines(function)
        for name, file in package_modules().items()
        for function in _functions(file)
        if _num_lines(function) > MAX_FUNCTION_LINES
    }
    assert too_long.keys() == LONG_FUNCTIONS.keys(), too_long


def test_every_module_with_logic_has_a_test_file_of_its_own_name() -> None:
    missing = {
        name
        for name, file in package_modules().items()
        if _functions(file) and not _test_file(name).exists()
    }
    assert missing == WITHOUT_TEST_FILE.keys(), sorted(missing ^ WITHOUT_TEST_FILE.keys())


def test_every_test_file_of_a_package_has_the_name_of_a_module() -> None:
    expected = {_test_file(name) for name in package_modules()}
    strangers = {
        file.relative_to(ROOT / "tests").as_posix()
        for package in PACKAGES
        for file in (ROOT / "tests" / package).rglob("test_*.py")
        if file not in expected
    }
    assert strangers == TESTS_OF_NO_MODULE.keys(), sorted(strangers ^ TESTS_OF_NO_MODULE.keys())


def _functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in ast.walk(parse(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _test_file(module: str) -> Path:
    *folders, name = module.split(".")
    return ROOT.joinpath("tests", *folders, f"test_{name}.py")
