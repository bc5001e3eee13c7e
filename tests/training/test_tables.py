"""Text in the cells of tables: no spreadsheet computes it, and every text can be read back."""

import random

import pytest

from training.tables import from_cell, to_cell

FORMULAS = [
    "=HYPERLINK(1)",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1",
    "-2+3",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "'=1",
    "''@x",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_begins_with_an_apostrophe_and_can_be_read_back(text: str) -> None:
    assert to_cell(text) == "'" + text
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("text", ["", "cat/1.jpg", "a=b", "1-2", "'quoted'", "'", "é+", " =x"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert to_cell(text) == text
    assert from_cell(text) == text


def test_any_text_can_be_read_back_and_no_two_texts_have_the_same_cell() -> None:
    rng = random.Random(0)
    texts = {"".join(rng.choices("'=+a-@\t", k=rng.randint(0, 4))) for _ in range(2000)}
    cells = {text: to_cell(text) for text in texts}
    assert len(set(cells.values())) == len(texts)
    for text, cell in cells.items():
        assert from_cell(cell) == text
        assert cell[:1] not in tuple("=+-@\t")
