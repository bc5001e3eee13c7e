"""The images that the client sends: paths, bytes, or bytes with a name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.naming import storable

FIELD = "image"

Image = str | os.PathLike[str] | bytes | tuple[str, bytes]
"""One image: the path of a file, the bytes of a file, or a name and the bytes."""
Images = list[Any]
"""Several images of any kind. The type list[Image] would not accept a list[Path]."""


def as_sequence(images: Image | Images) -> tuple[Image, ...]:
    return tuple(images) if isinstance(images, list) else (images,)


def form_files(images: Sequence[Image]) -> list[tuple[str, tuple[str, bytes]]]:
    """Read images, and return the fields of the form: the field's name, and a file with its name.

    Raises UserError for a file that cannot be read, and for a value that is not an image.
    """
    return [(FIELD, _named(image, number)) for number, image in enumerate(images, 1)]


def _named(image: Image, number: int) -> tuple[str, bytes]:
    """The name and the bytes of an image. Bytes without a name get their number."""
    match image:
        case bytes():
            return f"image {number}", image
        case str(name), bytes(content):
            return storable(name), content
        case str() | os.PathLike():
            return storable(Path(image).name), _read(Path(image))
    raise UserError(
        "an image must be a path, the bytes of a file, or a pair of a name and bytes, "
        f"got {type(image).__name__}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); pass the path of an image") from error
