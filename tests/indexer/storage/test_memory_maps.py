"""Memory maps: the committed bytes and no others, and an error that says what is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.manifest import Extent, IndexDirectoryError, read_manifest
from indexer.storage.memory_maps import map_codes, map_extent, whole_rows
from tests.indexer.items import made_up_encoder, made_up_features


def test_only_the_committed_bytes_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "texts-0.utf8").write_bytes(b"committed, and not")
    mapped = map_extent(tmp_path, Extent("texts-0.utf8", 9), "unused")
    assert mapped.tobytes() == b"committed"
    assert not mapped.flags.writeable


@pytest.mark.parametrize("content", [None, b"", b"comm"])
def test_missing_bytes_are_an_error_with_the_remedy_and_without_a_remedy_the_rest_is_mapped(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "texts-0.utf8").write_bytes(content)
    problem = "is missing" if content is None else f"should hold 9 bytes but has {len(content)}"
    with pytest.raises(IndexDirectoryError, match=rf"texts-0\.utf8 {problem}; run: this command$"):
        map_extent(tmp_path, Extent("texts-0.utf8", 9), "run: this command")
    assert map_extent(tmp_path, Extent("texts-0.utf8", 9), None).tobytes() == (content or b"")


def test_an_empty_extent_needs_an_existing_file(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="is missing"):
        map_extent(tmp_path, Extent("removed-0.u64", 0), "remedy")
    (tmp_path / "removed-0.u64").write_bytes(b"")
    assert len(map_extent(tmp_path, Extent("removed-0.u64", 0), "remedy")) == 0


def test_codes_are_mapped_with_one_row_per_row(coded: Path) -> None:
    codes = map_codes(coded, read_manifest(coded))
    np.testing.assert_array_equal(codes, made_up_encoder().encode(made_up_features(20, seed=0)))


def test_codes_for_fewer_rows_than_there_are_items_are_refused(coded: Path) -> None:
    manifest = replace(read_manifest(coded), num_rows=21)
    with pytest.raises(
        IndexDirectoryError, match=r"one code per row but has 20 codes for 21 rows; "
    ):
        map_codes(coded, manifest)


def test_a_last_row_that_was_cut_off_does_not_count() -> None:
    content = np.arange(11, dtype=np.uint8)
    assert whole_rows(content, 4).tolist() == list(range(8))
    assert whole_rows(content[:8], 4).tolist() == list(range(8))
    assert len(whole_rows(content[:3], 4)) == 0
