"""The texts of queries that an index cannot answer."""

from pathlib import Path

from indexer.errors import MAX_LABELS_NAMED, NoProbeError, UnknownLabelError


def test_an_unknown_label_is_answered_with_some_that_exist() -> None:
    labels = [f"label {number}" for number in range(MAX_LABELS_NAMED + 2)]
    text = str(UnknownLabelError("x" * 500, labels))
    assert text.endswith("label 9 and 2 more")
    assert f"the label {'x' * 100};" in text
    assert str(UnknownLabelError("cat", [])).endswith("the labels are: none")


def test_a_missing_probe_is_answered_with_the_command_that_fits_one() -> None:
    assert str(NoProbeError(Path("photos"))).endswith("lookalike index probe photos")
