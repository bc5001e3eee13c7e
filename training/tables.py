"""Text in the cells of tables that are opened with a spreadsheet.

A spreadsheet takes a cell that begins with one of a few characters for a formula, and computes it.
A file name or a label can come from a stranger, so such a text gets an apostrophe in front of it.
"""

import re

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The start of a formula: one of = + - @, also as wide characters, or a tab or a line break. A text
that begins with apostrophes gets one more, so that `from_cell` can undo every change."""


def to_cell(text: str) -> str:
    """The text for a cell. If a spreadsheet would compute it, it begins with an apostrophe."""
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text that `to_cell` has written."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
