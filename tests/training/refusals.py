"""The error message for DATA that is refused."""

from pathlib import Path

import pytest

from training.data.datasets import open_dataset
from training.data.examples import DataError


def refusal(data: Path | str) -> str:
    """Open DATA, which must raise DataError, and return its message, which must be one line."""
    with pytest.raises(DataError) as caught:
        open_dataset(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)
