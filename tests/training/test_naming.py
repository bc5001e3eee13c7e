"""Names as text: what can be stored, what fits on one line, and which comes first."""

import os
import random

import pytest

from training.naming import natural_key, one_line, printable, storable

IN_ORDER = [
    "",
    "1",
    "02",
    "2",
    "2nd",
    "10",
    "label",
    "label 1",
    "label 2",
    "label 2b",
    "label 10",
    "label 10a 9",
    "label 10a 10",
    "label nine",
]


def test_numbers_in_names_are_ordered_by_their_value() -> None:
    shuffled = random.Random(0).sample(IN_ORDER, len(IN_ORDER))
    assert sorted(shuffled, key=natural_key) == IN_ORDER


def test_different_names_have_different_keys_even_for_equal_numbers() -> None:
    names = ["7", "07", "007", "0", "00", "a", "a0", "a00"]
    assert len({str(natural_key(name)) for name in names}) == len(names)
    assert sorted(set(names), key=natural_key) == sorted(names, key=natural_key)


def test_numbers_of_any_length_are_ordered() -> None:
    names = ["9" * 10_000, "1" + "0" * 10_000]  # more digits than int() accepts
    assert sorted(set(names), key=natural_key) == names


def test_digits_of_other_scripts_are_ordered_as_text() -> None:
    assert sorted(["x³", "x²", "x٣", "x9"], key=natural_key) == ["x9", "x²", "x³", "x٣"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("cat/é 1.jpg", "cat/é 1.jpg"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
    ],
)
def test_a_name_is_printed_on_one_line(name: str, printed: str) -> None:
    assert one_line(name) == printed


def test_bytes_that_are_not_utf8_are_stored_as_escapes() -> None:
    assert storable("café.jpg") == "café.jpg"
    assert storable(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"


def test_a_text_for_a_terminal_keeps_only_its_line_breaks() -> None:
    assert printable("one\ntwo\x1b[2J\r\u202e\x9b1m") == "one\ntwo\\x1b[2J\\r\\u202e\\x9b1m"
