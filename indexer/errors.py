"""Queries that an index cannot answer."""

from collections.abc import Sequence
from pathlib import Path

from indexer.storage.manifest import IndexDirectoryError
from training.errors import UserError

MAX_LABELS_NAMED = 10
"""Maximum number of labels that an error names."""


class UnknownLabelError(UserError):
    """No item of the index has this label."""

    def __init__(self, label: str, labels: Sequence[str]):
        named = ", ".join(labels[:MAX_LABELS_NAMED]) or "none"
        num_more = len(labels) - MAX_LABELS_NAMED
        more = f" and {num_more} more" if num_more > 0 else ""
        super().__init__(f"no item has the label {label[:100]}; the labels are: {named}{more}")


class NoProbeError(IndexDirectoryError):
    """A classifier for the items' labels was requested, but the index has no probe."""

    def __init__(self, directory: Path):
        super().__init__(
            f"classifying by items needs a probe but {directory} has none; "
            f"fit one with: lookalike index probe {directory}"
        )
