"""Print the results of the index commands."""

import json
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as indented JSON on the standard output."""
    print(json.dumps(value, indent=2))


def format_share(share: float | None) -> str:
    """A share from 0 to 1 in per cent. None gives `unknown`."""
    return "unknown" if share is None else f"{share:.1%}"
