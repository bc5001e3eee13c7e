"""Prose in plain English: the patterns of an older, harder style do not come back.

Each pattern says what to write instead. A match that is right English goes into ALLOWED.
"""

import re
from collections.abc import Iterator

import pytest

from tests.conventions.sources import ROOT, Prose, document_prose, python_prose

PYTHON_FOLDERS = ("training", "indexer", "service", "benchmarks", "tests")
DOCUMENTS = (
    *("*.md", "docs/*.md"),
    *("Makefile", "Dockerfile", ".ci/run", "pyproject.toml", "*.yml"),
    *("service/web/*.html", "service/web/*.js", "service/web/*.css"),
)
UNIT = (
    r"(?:batch|bit|bucket|byte|class|code|core|device|epoch|image|item|layer|line|method|process"
    r"|query|question|request|round|row|run|second|seed|step|structure|thread|tower|worker)"
)
COUNTED = r"(?:bits|bytes|seconds|milliseconds|ms|s|[KMG]B|images|items|numbers|threads|times)"
PREPOSITION = r"at|as|by|for|from|has|in|is|of|on|to|with"
PATTERNS: dict[str, tuple[str, str]] = {
    "is no": (
        r"(?<!there )\b(?:is|are|was|were|be) no\b(?! longer| more\b)",
        "write `is not a`: files that are not images",
    ),
    "a ... a": (
        rf"\b(?:an?|one|each) (?!(?:{PREPOSITION}) )[a-z-]+ an? {UNIT}\b|\b{COUNTED} an? {UNIT}\b",
        "write `per`: one bit per hyperplane",
    ),
    "of which": (
        r"\bof (?:which|whose|whom)\b(?=[^?]*$)",
        "split the sentence",
    ),
    "tell of": (r"\b(?:told|tells?|telling) of\b", "write `report` or `warn`"),
    "old words": (
        r"\b(?:learnt|lest|reckon(?:s|ed|ing)?|whereof|wherein|thereof|naught|nought|ere|thrice"
        r"|whilst|unto|upon)\b",
        "use the common word: learned, so that ... not, calculate, on, while",
    ),
    "metaphors": (
        r"\bfront doors?\b|\bthe road\b|\bthe house\b|\btwins?\b|\bleft in peace\b",
        "name the thing: command line, pipeline, copy",
    ),
    "ours": (r"\b(?:ours|theirs)\b(?! is\b)", "name whose it is"),
    "so many": (
        r"\b(?:of|on|from|for|in|with|than) so many\b",
        "say how many, or `this number of`",
    ),
    "where there": (
        r"\bwhere (?:there (?:is|are)|it (?:is|has|can)|they (?:are|have|can))\b",
        "write `if` or `when`",
    ),
    "once they are": (
        r"\bonce (?:it|they) (?:is|are)\b",
        "write `when they make up a fifth of the rows`",
    ),
    "can be had": (r"\b(?:can|could|is to|are to) be had\b", "write `is available`"),
}
DOCSTRING_START = re.compile(r"(?:Whose|That|Of|What|Which|Where|By which|In which)\b(?![^.]*\?)")
"""A question is a full sentence, so it may begin a docstring."""
ALLOWED = (
    "where they are kept, and which",
    "at the step where it is",
)
"""Texts that a pattern matches but that are right English. Each must occur somewhere."""


def prose() -> Iterator[Prose]:
    own_folder = ROOT / "tests" / "conventions"
    for folder in PYTHON_FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file.parent != own_folder:
                yield from python_prose(file)
    yield from python_prose(ROOT / "lookalike.py")
    for pattern in DOCUMENTS:
        for file in sorted(ROOT.glob(pattern)):
            yield from document_prose(file)


@pytest.fixture(scope="module")
def all_prose() -> list[Prose]:
    return list(prose())


@pytest.mark.parametrize("name", PATTERNS)
def test_no_text_has_a_pattern_of_the_old_style(name: str, all_prose: list[Prose]) -> None:
    pattern, advice = PATTERNS[name]
    compiled = re.compile(pattern, re.IGNORECASE)
    matches = [
        f"{text.file}:{text.line}: ...{text.text[max(match.start() - 40, 0) : match.end() + 30]}..."
        for text in all_prose
        for match in compiled.finditer(text.text)
        if not _is_allowed(text.text, match)
    ]
    assert not matches, f"{len(matches)} texts; {advice}\n" + "\n".join(matches)


def test_no_docstring_begins_with_a_relative_clause(all_prose: list[Prose]) -> None:
    matches = [
        f"{text.file}:{text.line}: {text.text[:60]}"
        for text in all_prose
        if text.is_docstring and DOCSTRING_START.match(text.text)
    ]
    assert not matches, f"{len(matches)} docstrings\n" + "\n".join(matches)


def test_every_allowed_text_still_occurs(all_prose: list[Prose]) -> None:
    unused = [text for text in ALLOWED if not any(text in one.text for one in all_prose)]
    assert not unused


def _is_allowed(text: str, match: re.Match[str]) -> bool:
    return any(
        allowed_match.start() <= match.start() and match.end() <= allowed_match.end()
        for allowed in ALLOWED
        for allowed_match in re.finditer(re.escape(allowed), text)
    )
