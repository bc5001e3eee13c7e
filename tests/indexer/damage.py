"""Damage to a file, a byte at a time, and how to undo it."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

NUM_PLACES = 40
"""Bytes tried in a large file. In a small file every byte is tried."""


def flip(file: Path, place: int) -> Callable[[], None]:
    """Changes a byte of a file, and gives what changes it back."""

    def change() -> None:
        with file.open("r+b") as stream:
            stream.seek(place)
            (byte,) = stream.read(1)
            stream.seek(place)
            stream.write(bytes([byte ^ pattern]))

    pattern = random.Random(place).randrange(1, 256)
    change()
    return change


def some_places(file: Path) -> Iterator[int]:
    size = file.stat().st_size
    yield from (
        range(size)
        if size <= NUM_PLACES
        else sorted(random.Random(file.name).sample(range(size), NUM_PLACES))
    )
