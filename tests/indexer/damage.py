"""Damage to a file, one byte at a time, and how to undo it."""

import random
from collections.abc import Callable
from pathlib import Path

NUM_POSITIONS = 40
"""Number of bytes that are tried in a large file. In a small file every byte is tried."""


def flip(file: Path, position: int) -> Callable[[], None]:
    """Change one byte of a file, and return a function that changes it back.

    The bits that change depend on the position only.
    """

    def change() -> None:
        with file.open("r+b") as stream:
            stream.seek(position)
            (byte,) = stream.read(1)
            stream.seek(position)
            stream.write(bytes([byte ^ pattern]))

    pattern = random.Random(position).randrange(1, 256)
    change()
    return change


def truncate(file: Path, num_bytes: int) -> None:
    """Keep the first bytes of a file only."""
    with file.open("r+b") as stream:
        stream.truncate(num_bytes)


def some_positions(file: Path) -> list[int]:
    """Positions of bytes of a file, ascending. The same file gives the same positions."""
    size = file.stat().st_size
    if size <= NUM_POSITIONS:
        return list(range(size))
    return sorted(random.Random(file.name).sample(range(size), NUM_POSITIONS))
