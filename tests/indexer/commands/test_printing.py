"""Results as JSON and as text."""

import json

import pytest

from indexer.commands.printing import format_share, print_json


def test_json_is_printed_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"images": [{"path": "a.png", "label": None}], "share": 0.5}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value


def test_a_share_is_in_per_cent_or_unknown() -> None:
    assert [format_share(share) for share in (0.0, 0.956, 1.0, None)] == [
        "0.0%",
        "95.6%",
        "100.0%",
        "unknown",
    ]
