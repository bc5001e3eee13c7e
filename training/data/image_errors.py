"""The error for an image that cannot be used."""

from typing import Literal

from training.errors import UserError

Reason = Literal[
    "empty",
    "not-an-image",
    "unsupported",
    "truncated",
    "too-many-pixels",
    "too-costly",
    "unreadable",
]


class ImageError(UserError):
    """An image that cannot be used. `reason` is for programs, the message is for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason


def damaged_header() -> ImageError:
    """The error for a file whose header ends too early or contradicts itself."""
    return ImageError(
        "truncated",
        "the image is cut off or damaged in its header; use a complete copy of the file",
    )


def too_costly(what: str) -> ImageError:
    """The error for an image that would take too much time or memory."""
    return ImageError("too-costly", f"{what}; save the image again with an ordinary program")
