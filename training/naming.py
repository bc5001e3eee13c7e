"""Prepare the names of files and labels for storing, printing and sorting."""

import os
import re


def storable(name: str) -> str:
    """A file's name as text that UTF-8 can encode. Bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def one_line(name: str) -> str:
    """A name on one line. Line breaks and other unprintable characters are escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in name
    )


def printable(text: str) -> str:
    """A text for a terminal. Line breaks stay, but all other unprintable characters are escaped.

    So a file name cannot change the colours, the title or the earlier lines of a terminal.
    """
    return "\n".join(map(one_line, text.split("\n")))


def natural_key(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """A sort key that compares numbers in names by value: `label 2` comes before `label 10`.

    Use it to list labels for people. Class indices keep the alphabetical order of `class_names`.
    """
    # Two numbers are compared by their count of digits, and then digit by digit, because int()
    # refuses more than 4,300 digits.
    pieces = [
        (text, digits.lstrip("0") or digits[:1])
        for text, digits in re.findall("([^0-9]*)([0-9]*)", name)
    ]
    return [(text, len(digits), digits) for text, digits in pieces], name
