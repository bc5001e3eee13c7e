"""Sizes of memory, read, printed and measured."""

from pathlib import Path

import pytest

from indexer.search.kinds import choose
from indexer.search.memory import default_memory_bytes, format_size, parse_memory
from training.errors import UserError

GB = 10**9


def test_the_budget_is_half_of_the_memory_unless_given() -> None:
    assert 0 < default_memory_bytes() < 2**60
    assert choose("auto", 10**9).warning is not None


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4GB", 4 * GB),
        ("512 mb", 512 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("1000", 1000),
        ("2T", 2 * 10**12),
        ("64k", 64_000),
    ],
)
def test_a_memory_size_is_read_as_people_write_it(text: str, num_bytes: int) -> None:
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(4 * GB, "4.0 GB"), (GB - 1, "1,000.0 MB"), (10**6, "1.0 MB"), (1500, "1.5 kB")],
)
def test_a_size_is_written_in_the_unit_that_suits_it(num_bytes: int, text: str) -> None:
    assert format_size(num_bytes) == text


@pytest.mark.parametrize("text", ["", "much", "-1GB", "4 apples", "0", "1.5.2GB", "nan", "1e999GB"])
def test_a_text_that_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(
        UserError, match=r"--memory must be a size such as 4GB, 512MB or 1\.5GiB, got"
    ):
        parse_memory(text)


def test_the_limit_of_a_container_counts_if_it_is_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_file = tmp_path / "memory.max"
    monkeypatch.setattr("indexer.search.memory._CGROUP_LIMIT_FILE", limit_file)
    of_machine = default_memory_bytes()
    for content, expected in (("max\n", of_machine), ("1000\n", 500), (f"{2**60}\n", of_machine)):
        limit_file.write_text(content)
        assert default_memory_bytes() == expected
