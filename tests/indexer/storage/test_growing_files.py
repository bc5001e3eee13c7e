"""Growing files: what was synced stays, what was not committed goes, and errors name the file."""

import errno
import zlib
from pathlib import Path

import pytest

from indexer.storage.growing_files import (
    GrowingFile,
    measure_extent,
    new_files,
    open_files,
    truncate_to_commit,
)
from indexer.storage.manifest import Extent, Manifest


def test_an_extent_has_the_length_and_the_checksum_of_all_that_was_appended(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path, Extent("texts-0.utf8"))
    file.append(b"one")
    assert file.sync() == Extent("texts-0.utf8", 3, zlib.crc32(b"one"))
    file.append(b", two")
    extent = file.sync()
    file.close()
    assert extent == Extent("texts-0.utf8", 8, zlib.crc32(b"one, two"))
    assert (tmp_path / "texts-0.utf8").read_bytes() == b"one, two"
    reopened = GrowingFile(tmp_path, extent)
    reopened.append(b", three")
    assert reopened.sync() == Extent("texts-0.utf8", 15, zlib.crc32(b"one, two, three"))
    reopened.close()


def test_opening_a_file_drops_what_lies_beyond_its_extent(tmp_path: Path) -> None:
    (tmp_path / "texts-0.utf8").write_bytes(b"committed, and not")
    file = GrowingFile(tmp_path, Extent("texts-0.utf8", 9, zlib.crc32(b"committed")))
    file.append(b"!")
    file.sync()
    file.close()
    assert (tmp_path / "texts-0.utf8").read_bytes() == b"committed!"


def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = GrowingFile(tmp_path, Extent("texts-0.utf8"))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/texts-0\.utf8'"):
        file.sync()
    file.close()


def test_a_measured_extent_differs_if_a_byte_changed_or_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.storage.growing_files.READ_CHUNK_BYTES", 4)
    content = b"longer than a chunk"
    extent = Extent("texts-0.utf8", len(content), zlib.crc32(content))
    with pytest.raises(FileNotFoundError):
        measure_extent(tmp_path, extent)
    (tmp_path / extent.file).write_bytes(content + b" and not committed")
    assert measure_extent(tmp_path, extent) == extent
    (tmp_path / extent.file).write_bytes(content[:-1])
    assert measure_extent(tmp_path, extent).num_bytes == extent.num_bytes - 1
    (tmp_path / extent.file).write_bytes(b"L" + content[1:])
    assert measure_extent(tmp_path, extent).num_bytes == extent.num_bytes
    assert measure_extent(tmp_path, extent) != extent


def test_files_are_cut_to_their_committed_length(tmp_path: Path) -> None:
    extents = {"texts": Extent("texts-0.utf8", 3), "codes": Extent("codes-4.bin", 2)}
    manifest = Manifest(model_id="", created_at="", updated_at="", files=extents)
    (tmp_path / "texts-0.utf8").write_bytes(b"onetwo")
    truncate_to_commit(tmp_path, manifest)
    assert (tmp_path / "texts-0.utf8").read_bytes() == b"one"
    assert not (tmp_path / "codes-4.bin").exists()  # a missing file is not made


def test_a_generation_begins_with_empty_files_and_without_codes(tmp_path: Path) -> None:
    extents = new_files(3)
    assert [extent.file for extent in extents.values()] == [
        "records-3.bin",
        "features-3.f32",
        "texts-3.utf8",
        "thumbnails-3.jpeg",
        "removed-3.u64",
    ]
    files = open_files(tmp_path, {**extents, "codes": Extent("codes-9.bin")})
    assert {kind: file.sync() for kind, file in files.items()} == extents
    assert not (tmp_path / "codes-9.bin").exists()
    for file in files.values():
        file.close()
