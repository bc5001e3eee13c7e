"""An example: one image, what it is called, and what it shows."""

import os
from dataclasses import dataclass

from training.data.images import Source
from training.errors import UserError


class DataError(UserError):
    """Images that cannot be found or cannot be learnt from."""


@dataclass(frozen=True)
class Example:
    """One image: `path` is its name within the data (POSIX, as the index shows it), `source` where its bytes are."""

    path: str
    label: str | None
    source: Source


def storable(name: str) -> str:
    """A file's name as text that can be stored anywhere: bytes that are no UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
