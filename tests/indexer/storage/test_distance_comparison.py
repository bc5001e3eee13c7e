"""The stored comparison of the distances: it stays until the next one, in the same format."""

import json
from dataclasses import asdict
from pathlib import Path

from indexer.storage.distance_comparison import (
    COMPARISON,
    DistanceComparison,
    parse_comparison,
)
from indexer.storage.manifest import FORMAT_VERSION, MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.compact import compact
from indexer.updates.mend import mend
from indexer.updates.verify import verify
from tests.indexer.golden import write_golden_index
from tests.indexer.items import add_made_up

MEASURED = DistanceComparison(
    better_metric="cosine", precisions={"euclidean": 0.5, "cosine": 2 / 3}, k=6, commit=2
)


def store(directory: Path) -> None:
    with IndexWriter.open(directory) as writer:
        writer.search_options[COMPARISON] = asdict(MEASURED)
        writer.commit()


def test_a_comparison_stays_when_items_are_added_removed_compacted_or_mended(index: Path) -> None:
    store(index)
    add_made_up(index, range(30, 40))
    with IndexWriter.open(index) as writer:
        writer.remove([1, 2, 3, 25])
        writer.commit()
    assert read_manifest(index).distance_comparison == MEASURED
    compact(index, force=True, memory_bytes=10**9)
    assert read_manifest(index).distance_comparison == MEASURED
    features = index / read_manifest(index).files["features"].file
    content = bytearray(features.read_bytes())
    content[0] ^= 1
    features.write_bytes(content)
    assert mend(index) == 25
    assert read_manifest(index).distance_comparison == MEASURED
    assert verify(index).is_clean


def test_an_index_without_a_comparison_is_read_and_has_none(tmp_path: Path) -> None:
    write_golden_index(tmp_path / "golden")
    assert read_manifest(tmp_path / "golden").distance_comparison is None


def test_a_comparison_does_not_change_the_format_of_the_manifest(index: Path) -> None:
    """A release that does not know the comparison refuses fields that it does not know."""
    before = json.loads((index / MANIFEST_FILE).read_text())
    store(index)
    after = json.loads((index / MANIFEST_FILE).read_text())
    assert after["format_version"] == FORMAT_VERSION == 3
    assert list(after) == list(before)
    assert after["artefacts"] == before["artefacts"]
    assert after["search"] == {**before["search"], "distance_comparison": asdict(MEASURED)}


def test_what_a_later_release_stored_counts_as_no_comparison() -> None:
    stored = asdict(MEASURED)
    assert parse_comparison({COMPARISON: stored}) == MEASURED
    for unknown in (
        {**stored, "better_metric": "manhattan"},
        {**stored, "num_queries": 100},
        {"better_metric": "cosine"},
        "cosine",
    ):
        assert parse_comparison({COMPARISON: unknown}) is None
