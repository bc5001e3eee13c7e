"""An example: one image of a data set, with its name and its label."""

from dataclasses import dataclass

from training.data.images import Source
from training.errors import UserError


class DataError(UserError):
    """The images cannot be found, or they cannot be used for training."""


@dataclass(frozen=True)
class Example:
    """One image of a data set, not decoded yet."""

    path: str
    """The image's name within the data set, as a POSIX path. The index shows this name."""
    label: str | None
    source: Source
    """The file, the tar member or the bytes in memory that contain the encoded image."""
