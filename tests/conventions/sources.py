"""The project's files as the convention tests read them: modules, imports and prose."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("training", "indexer", "service")


@dataclass(frozen=True)
class Prose:
    """A text for people: a docstring, a comment, a string literal, or a paragraph of a document."""

    file: str
    line: int
    text: str
    """On one line, whatever its line breaks were."""
    is_docstring: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def package_modules() -> dict[str, Path]:
    """The modules of the packages by dotted name. Package folders are left out."""
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
        if file.name != "__init__.py"
    }


def imported_names(file: Path) -> Iterator[str]:
    """The dotted names that a file imports, at its top or inside a function.

    `from training.network import model` gives `training.network.model`.
    """
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def python_prose(file: Path) -> Iterator[Prose]:
    """The docstrings, comments, string literals and test names of a Python file."""
    name = file.relative_to(ROOT).as_posix()
    nodes = list(ast.walk(parse(file)))
    docstrings = {
        node.value
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    parts_of_f_strings = {
        part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test_"):
                yield Prose(name, node.lineno, node.name.replace("_", " "))
        elif isinstance(node, ast.JoinedStr):
            texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            yield Prose(name, node.lineno, _on_one_line("{}".join(map(str, texts))))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in parts_of_f_strings
        ):
            yield Prose(name, node.lineno, _on_one_line(node.value), node in docstrings)
    yield from _comments(file, name)


def _comments(file: Path, name: str) -> Iterator[Prose]:
    """The comments of a Python file. Comments on consecutive lines are one text."""
    lines: list[str] = []
    last_line = 0
    for token in tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != last_line + 1:
            yield Prose(name, last_line - len(lines) + 1, " ".join(lines))
            lines = []
        last_line = token.start[0]
        lines.append(token.string.lstrip("# "))
    if lines:
        yield Prose(name, last_line - len(lines) + 1, " ".join(lines))


def document_prose(file: Path) -> Iterator[Prose]:
    """The paragraphs of a document or of any other text file."""
    name, line = file.relative_to(ROOT).as_posix(), 1
    for paragraph in file.read_text("utf-8").split("\n\n"):
        if paragraph.strip():
            yield Prose(name, line, _on_one_line(paragraph))
        line += paragraph.count("\n") + 2


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
